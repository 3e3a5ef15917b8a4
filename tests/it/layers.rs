//! Architecture tests: modules use only modules of lower layers, and the modules of one folder have no cycles.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, ItemUse, Macro, UseTree};

/// The top-level modules. A module uses only modules that precede it here.
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
    "response",
    "access",
    "server",
    "app",
    "commands",
];

/// A module's path below the crate's root.
type Name = Vec<String>;

/// What a module's code defines and uses, without its tests.
#[derive(Default)]
struct Module {
    /// The words and paths in each type and constant that the module defines, by name.
    defined: BTreeMap<String, BTreeSet<String>>,
    /// The paths of `use` items, by the name in this module.
    imported: BTreeMap<String, Vec<String>>,
    /// All paths with more than one segment, from the crate's root.
    paths: BTreeSet<Vec<String>>,
}

/// All modules below the crate's root.
struct Modules(BTreeMap<Name, Module>);

#[test]
fn modules_use_only_layers_above() {
    let modules = Modules::read();
    let tops: BTreeSet<&str> = modules.0.keys().map(|name| name[0].as_str()).collect();
    assert_eq!(tops, LAYERS.into_iter().collect(), "LAYERS names each top-level module");
    let height = |top: &str| LAYERS.iter().position(|layer| *layer == top);
    let mut wrong = Vec::new();
    for (user, module) in &modules.0 {
        for used in module.paths.iter().filter(|used| height(&used[0]) > height(&user[0])) {
            wrong.push(format!("{} uses {}", user.join("::"), used.join("::")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn sibling_modules_have_no_cycles() {
    let modules = Modules::read();
    // The sibling modules that each module uses. Submodules count as their ancestor.
    let mut uses: BTreeMap<&[String], BTreeSet<Name>> = BTreeMap::new();
    for (user, module) in &modules.0 {
        for used in module.paths.iter().filter_map(|path| Some(modules.home(path)?.0)) {
            let shared = user.iter().zip(&used).take_while(|(one, other)| one == other).count();
            if user.len() > shared && used.len() > shared {
                uses.entry(&user[..=shared]).or_default().insert(used[..=shared].to_vec());
            }
        }
    }
    for module in uses.keys() {
        let (mut reached, mut open) = (BTreeSet::new(), vec![*module]);
        while let Some(next) = open.pop() {
            for used in uses.get(next).into_iter().flatten() {
                assert_ne!(used, module, "the module uses itself through {}", next.join("::"));
                if reached.insert(used) {
                    open.push(used);
                }
            }
        }
    }
}

#[test]
fn modules_use_only_independent_items_of_their_parent() {
    let modules = Modules::read();
    let mut wrong = Vec::new();
    for (user, module) in &modules.0 {
        for path in &module.paths {
            let Some((home, item)) = modules.home(path) else { continue };
            let (Some(child), Some(item)) = (user.get(home.len()), item) else { continue };
            if user.starts_with(&home) && !modules.defines(&home, &item, child) {
                wrong.push(format!("{} uses {}", user.join("::"), path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl Modules {
    fn read() -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let above = ["main.rs", "lib.rs", "testing.rs"].map(|file| source.join(file));
        let files =
            files(&source).into_iter().filter(|file| !is_test(&source, file) && !above.contains(file));
        let read = |file: PathBuf| {
            let text = fs::read_to_string(&file).expect("a readable file");
            let name = name(&source, &file);
            let module = Module::read(&name, &syn::parse_file(&text).expect("a file that compiles"));
            (name, module)
        };
        Self(files.map(read).collect())
    }

    /// The module that defines the item of a path, and the item's name. Re-exports with `use` are followed.
    fn home(&self, path: &[String]) -> Option<(Name, Option<String>)> {
        let mut path = path.to_vec();
        loop {
            let end = (1..=path.len()).rev().find(|end| self.0.contains_key(&path[..*end]))?;
            let (home, rest) = (path[..end].to_vec(), &path[end..]);
            let Some(item) = rest.first() else { return Some((home, None)) };
            match self.0[&home].imported.get(item) {
                Some(other) if other.len() > 1 && *other != path => {
                    path = other.iter().chain(&rest[1..]).cloned().collect();
                }
                _ => return Some((home, Some(item.clone()))),
            }
        }
    }

    /// Whether a module's type or constant is defined without the child module.
    fn defines(&self, home: &Name, item: &str, child: &str) -> bool {
        let module = &self.0[home];
        let of_child: Name = home.iter().cloned().chain([child.to_owned()]).collect();
        let (mut reached, mut open) = (BTreeSet::from([item]), vec![item]);
        while let Some(next) = open.pop() {
            let Some(words) = module.defined.get(next) else { return next != item };
            for word in words {
                let (first, is_path) =
                    word.split_once("::").map_or((word.as_str(), false), |(first, _)| (first, true));
                let from_child = module.imported.get(first).is_some_and(|path| path.starts_with(&of_child));
                if from_child || is_path && first == child {
                    return false;
                }
                if module.defined.contains_key(word) && reached.insert(word) {
                    open.push(word);
                }
            }
        }
        true
    }
}

impl Module {
    fn read(name: &[String], file: &File) -> Self {
        let mut reader = Reader { name, module: Self::default() };
        reader.visit_file(file);
        reader.module
    }
}

/// Reads a module's file.
struct Reader<'a> {
    name: &'a [String],
    module: Module,
}

impl Reader<'_> {
    /// The path from the crate's root. `None` if the path is outside this crate.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let supers = path.iter().take_while(|name| *name == "super").count();
        let (base, skipped) = match path.first()?.as_str() {
            "crate" => (&[][..], 1),
            "super" => (&self.name[..self.name.len().checked_sub(supers)?], supers),
            "self" => (self.name, 1),
            _ => (self.name, 0),
        };
        Some(base.iter().chain(&path[skipped..]).cloned().collect())
    }

    fn record(&mut self, path: &[String]) {
        self.module
            .paths
            .extend(self.absolute(path).filter(|_| path.len() > 1).filter(|path| !path.is_empty()));
    }

    fn record_use_tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let (path, name) = match tree {
            UseTree::Path(path) => return self.record_use_tree(&path.tree, &with(&path.ident)),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.record_use_tree(tree, before));
            }
            UseTree::Glob(_) => return self.record(before),
            UseTree::Name(name) if name.ident == "self" => {
                (before.to_vec(), before.last().cloned().unwrap_or_default())
            }
            UseTree::Name(name) => (with(&name.ident), name.ident.to_string()),
            UseTree::Rename(renamed) => (with(&renamed.ident), renamed.rename.to_string()),
        };
        self.record(&path);
        if let Some(path) = self.absolute(&path) {
            self.module.imported.insert(name, path);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let (attributes, name): (&[Attribute], _) = match item {
            Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            Item::Type(item) => (&item.attrs, Some(&item.ident)),
            Item::Const(item) => (&item.attrs, Some(&item.ident)),
            Item::Static(item) => (&item.attrs, Some(&item.ident)),
            Item::Mod(item) => (&item.attrs, None),
            Item::Fn(item) => (&item.attrs, None),
            Item::Impl(item) => (&item.attrs, None),
            Item::Use(item) => (&item.attrs, None),
            _ => (&[], None),
        };
        if attributes
            .iter()
            .any(|attribute| words(attribute).is_superset(&["cfg", "test"].map(str::to_owned).into()))
        {
            return;
        }
        if let Some(name) = name {
            self.module.defined.insert(name.to_string(), words(item));
        }
        visit::visit_item(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.record_use_tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.record(&names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        for word in words(&called.tokens) {
            let names: Vec<String> =
                word.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
            self.record(&names);
        }
    }
}

/// The words and paths in code, without literals.
fn words(code: &impl quote::ToTokens) -> BTreeSet<String> {
    let mut text = String::new();
    write_words(code.to_token_stream(), &mut text);
    text.split(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c)).map(str::to_owned).collect()
}

fn write_words(code: TokenStream, text: &mut String) {
    for token in code {
        match token {
            TokenTree::Group(group) => {
                text.push(' ');
                write_words(group.stream(), text);
                text.push(' ');
            }
            TokenTree::Literal(_) => text.push(' '),
            TokenTree::Punct(punct) => text.push(punct.as_char()),
            TokenTree::Ident(ident) => {
                if !text.ends_with("::") {
                    text.push(' ');
                }
                text.push_str(&ident.to_string());
            }
        }
    }
}

#[test]
fn words_of_code_have_paths_and_no_literals() {
    let code: TokenStream = r#"let a: b::C = d(e::f, '"', "g::h") ;"#.parse().expect("tokens");
    let words = words(&code);
    assert!(["a:", "b::C", "d", "e::f"].iter().all(|word| words.contains(*word)), "{words:?}");
    assert!(!words.iter().any(|word| word.contains('g') || word.contains('h')), "{words:?}");
}

/// Whether a file has only tests: `tests.rs`, or a file in a folder `tests`.
fn is_test(source: &Path, file: &Path) -> bool {
    let path = file.strip_prefix(source).expect("a file of the library").with_extension("");
    path.iter().any(|part| part == "tests")
}

/// The module of a file.
fn name(source: &Path, file: &Path) -> Name {
    let path = file.strip_prefix(source).expect("a file of the library").with_extension("");
    let mut names: Name = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.pop_if(|last| last == "mod");
    names
}

/// All Rust files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
