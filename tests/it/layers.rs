//! The order of the layers: a module uses only what stands above it in this list.

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
