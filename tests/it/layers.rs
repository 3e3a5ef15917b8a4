//! The order of the layers: a module uses only what stands above it in this list.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const LAYERS: [&str; 17] = [
    "api",
    "query",
    "config",
    "merge",
    "cli",
    "process",
    "transport",
    "kubeconfig",
    "control",
    "member",
    "fleet",
    "gather",
    "answer",
    "access",
    "server",
    "app",
    "commands",
];

#[test]
fn each_module_uses_only_those_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let library = fs::read_to_string(source.join("lib.rs")).expect("the library");
    let mut modules: Vec<&str> =
        library.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    modules.sort_unstable();
    let mut known = LAYERS.to_vec();
    known.sort_unstable();
    assert_eq!(modules, known, "each module of the library has its place in LAYERS");
    let mut wrong = Vec::new();
    for (height, layer) in LAYERS.iter().enumerate() {
        for file in files(&source, layer) {
            let text = fs::read_to_string(&file).expect("a readable file");
            assert!(!text.contains("use crate::{"), "{}: one `use crate::` a module", file.display());
            let used = text.match_indices("crate::").map(|(at, found)| {
                let rest = &text[at + found.len()..];
                &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len())]
            });
            for other in used {
                if LAYERS.iter().position(|known| *known == other).is_some_and(|other| other > height) {
                    wrong.push(format!("{} uses {other}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_two_modules_of_one_folder_use_each_other() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let texts: BTreeMap<Vec<String>, String> = LAYERS
        .iter()
        .flat_map(|layer| files(&source, layer))
        .filter(|file| !file.ends_with("tests.rs"))
        .map(|file| (module(&source, &file), fs::read_to_string(file).expect("a readable file")))
        .collect();
    // What each module uses of its parent's other modules, as which what is below them counts too.
    let mut uses: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for (user, text) in &texts {
        for used in used(user, text).into_iter().filter_map(|used| nearest(&texts, used)) {
            let shared = user.iter().zip(&used).take_while(|(one, other)| one == other).count();
            if user.len() > shared && used.len() > shared {
                uses.entry(user[..=shared].to_vec()).or_default().insert(used[..=shared].to_vec());
            }
        }
    }
    for module in uses.keys() {
        let (mut reached, mut open) = (BTreeSet::new(), vec![module]);
        while let Some(next) = open.pop() {
            for used in uses.get(next).into_iter().flatten() {
                assert_ne!(used, module, "it uses itself by way of {}", next.join("::"));
                if reached.insert(used) {
                    open.push(used);
                }
            }
        }
    }
}

/// A file's module, without the crate.
fn module(source: &Path, file: &Path) -> Vec<String> {
    let path = file.strip_prefix(source).expect("a file of the library").with_extension("");
    let mut names: Vec<String> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.pop_if(|last| last == "mod");
    names
}

/// The paths that a module's code names, from the crate's root; tests and comments do not count.
fn used(module: &[String], text: &str) -> Vec<Vec<String>> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default().lines();
    let code: Vec<&str> = code.map(|line| line.split("//").next().unwrap_or_default()).collect();
    let words =
        code.iter().flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c)));
    let paths = words.filter(|word| word.contains("::"));
    let absolute = |path: &str| {
        let mut names: Vec<&str> = path.split("::").filter(|name| !name.is_empty()).collect();
        let ups = names.iter().take_while(|name| **name == "super").count();
        let base = match *names.first()? {
            "crate" => &[][..],
            "super" => &module[..module.len().checked_sub(ups)?],
            _ => module,
        };
        names.drain(..ups.max(usize::from(["crate", "self"].contains(&names[0]))));
        Some(base.iter().cloned().chain(names.into_iter().map(str::to_owned)).collect())
    };
    paths.filter_map(absolute).collect()
}

/// The module that a path leads into.
fn nearest(texts: &BTreeMap<Vec<String>, String>, mut path: Vec<String>) -> Option<Vec<String>> {
    while !texts.contains_key(&path) {
        path.pop()?;
    }
    Some(path)
}

/// The files of a module: `<name>.rs` and everything below `<name>/`.
fn files(source: &Path, layer: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![source.join(format!("{layer}.rs")), source.join(layer)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") && path.exists() {
            found.push(path);
        }
    }
    assert!(!found.is_empty(), "{layer} has no files");
    found
}
