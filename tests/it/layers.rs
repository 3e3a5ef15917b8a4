//! The order of the layers, and no circle between the modules of one folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, ItemUse, Macro, UseTree};

/// A module uses only those that stand before it.
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

/// A module's path, without the crate.
type Name = Vec<String>;

/// What a module's code says, but for its tests.
#[derive(Default)]
struct Module {
    /// The words and paths of each type and constant that it defines, by its name.
    defined: BTreeMap<String, BTreeSet<String>>,
    /// What `use` brings in, by the name that it has here.
    imported: BTreeMap<String, Vec<String>>,
    /// All paths of more than one name, from the crate's root.
    paths: BTreeSet<Vec<String>>,
}

/// All modules below the crate's root.
struct Modules(BTreeMap<Name, Module>);

#[test]
fn each_module_uses_only_those_above_it() {
    let modules = Modules::read();
    let tops: BTreeSet<&str> = modules.0.keys().map(|name| name[0].as_str()).collect();
    assert_eq!(tops, LAYERS.into_iter().collect(), "each module of the library has its place in LAYERS");
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
fn no_two_modules_of_one_folder_use_each_other() {
    let modules = Modules::read();
    // What each module uses of its parent's other modules, as which what is below them counts too.
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
                assert_ne!(used, module, "it uses itself by way of {}", next.join("::"));
                if reached.insert(used) {
                    open.push(used);
                }
            }
        }
    }
}

#[test]
fn a_module_uses_of_its_parent_only_what_that_defines_without_it() {
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
            files(&source).into_iter().filter(|file| !file.ends_with("tests.rs") && !above.contains(file));
        let read = |file: PathBuf| {
            let text = fs::read_to_string(&file).expect("a readable file");
            let name = name(&source, &file);
            let module = Module::read(&name, &syn::parse_file(&text).expect("a file that compiles"));
            (name, module)
        };
        Self(files.map(read).collect())
    }

    /// The module in which the item of a path is written, and the item's name; through `use` wherever that re-exports it.
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

    /// Whether a module defines a type or a constant without its child.
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
    /// From the crate's root; `None` for what is not of this crate.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let ups = path.iter().take_while(|name| *name == "super").count();
        let (base, skipped) = match path.first()?.as_str() {
            "crate" => (&[][..], 1),
            "super" => (&self.name[..self.name.len().checked_sub(ups)?], ups),
            "self" => (self.name, 1),
            _ => (self.name, 0),
        };
        Some(base.iter().chain(&path[skipped..]).cloned().collect())
    }

    fn take(&mut self, path: &[String]) {
        self.module
            .paths
            .extend(self.absolute(path).filter(|_| path.len() > 1).filter(|path| !path.is_empty()));
    }

    fn take_tree(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let (path, name) = match tree {
            UseTree::Path(path) => return self.take_tree(&path.tree, &with(&path.ident)),
            UseTree::Group(group) => return group.items.iter().for_each(|tree| self.take_tree(tree, before)),
            UseTree::Glob(_) => return self.take(before),
            UseTree::Name(name) if name.ident == "self" => {
                (before.to_vec(), before.last().cloned().unwrap_or_default())
            }
            UseTree::Name(name) => (with(&name.ident), name.ident.to_string()),
            UseTree::Rename(renamed) => (with(&renamed.ident), renamed.rename.to_string()),
        };
        self.take(&path);
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
        self.take_tree(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.take(&names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        for word in words(&called.tokens) {
            let names: Vec<String> =
                word.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
            self.take(&names);
        }
    }
}

/// The words and paths of code, without what is in quotes.
fn words(code: &impl quote::ToTokens) -> BTreeSet<String> {
    let text = code.to_token_stream().to_string();
    let unquoted = text.split('"').step_by(2).collect::<String>().replace(" :: ", "::");
    unquoted.split(|c: char| !c.is_ascii_alphanumeric() && !"_:".contains(c)).map(str::to_owned).collect()
}

/// A file's module.
fn name(source: &Path, file: &Path) -> Name {
    let path = file.strip_prefix(source).expect("a file of the library").with_extension("");
    let mut names: Name = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    names.pop_if(|last| last == "mod");
    names
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
