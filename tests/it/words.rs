//! Plain language: banned words are in no code, comment, message or help text, and each type name is declared once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{ItemEnum, ItemStruct, ItemTrait, ItemType, ItemUnion};

/// Words and phrases that a reader with English as a second language may not know, and those that once named parts of this project
/// by a metaphor. CONTRIBUTING.md tells what to write instead.
const BANNED: [&str; 59] = [
    "amiss",
    "anew",
    "anybody",
    "are to be",
    "befall",
    "believe",
    "believed",
    "believes",
    "by itself",
    "converse",
    "cook",
    "cooking",
    "custody",
    "distrust",
    "ever later",
    "greeting",
    "handful",
    "has it not",
    "have it not",
    "hence",
    "hitherto",
    "hopeless",
    "in vain",
    "is to be",
    "kitchen",
    "lest",
    "likeliest",
    "mend",
    "mended",
    "nobody",
    "of a sudden",
    "once more",
    "overstay",
    "overstayed",
    "patience",
    "patient",
    "reception",
    "said of",
    "says of",
    "somebody",
    "stand in",
    "standing in",
    "stands in",
    "stood in",
    "thereby",
    "thus",
    "trouble",
    "troubles",
    "truth",
    "truths",
    "was to be",
    "weigh",
    "what became of",
    "what becomes of",
    "what came of",
    "what comes of",
    "whoever",
    "whom",
    "whose",
];

/// Type names that more than one file of `src` declares, and why.
const SHARED_NAMES: [(&str, &str); 0] = [];

#[test]
fn no_text_has_a_banned_word() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let here = root.join("tests/it/words.rs");
    let folders = ["src", "tests", "benches"].map(|folder| root.join(folder));
    let mut files: Vec<PathBuf> = folders.iter().flat_map(|folder| rust_files(folder)).collect();
    // Made from `--help`.
    files.push(root.join("docs/cli.md"));
    assert!(files.len() > 200, "only {} files are read", files.len());
    for file in files.iter().filter(|file| **file != here) {
        let text = fs::read_to_string(file).expect("a readable file");
        let words = words(&text);
        for phrase in BANNED {
            let phrase: Vec<&str> = phrase.split(' ').collect();
            for window in words.windows(phrase.len()) {
                if window.iter().map(|(_, word)| word.as_str()).eq(phrase.iter().copied()) {
                    let file = file.strip_prefix(root).expect("a file of this project").display();
                    found.push(format!("{file}:{}: {}", window[0].0, phrase.join(" ")));
                }
            }
        }
    }
    assert!(found.is_empty(), "{} banned words:\n{}", found.len(), found.join("\n"));
}

#[test]
fn words_of_identifiers_and_sentences_are_found() {
    let text = "fn look_up(HttpServer: u8)\n/// The server\n/// responds. MAX_AGE";
    let words: Vec<String> = words(text).into_iter().map(|(line, word)| format!("{line}{word}")).collect();
    let expected =
        ["1fn", "1look", "1up", "1http", "1server", "1u", "2the", "2server", "3responds", "3max", "3age"];
    assert_eq!(words, expected);
}

#[test]
fn each_type_name_is_declared_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = TypeNames::default();
    for file in rust_files(&root.join("src")) {
        let text = fs::read_to_string(&file).expect("a readable file");
        names.file = file.strip_prefix(root).expect("a file of this project").to_owned();
        names.visit_file(&syn::parse_file(&text).expect("a file that compiles"));
    }
    assert!(names.files.len() > 300, "only {} types are found", names.files.len());
    let is_shared = |name: &String| SHARED_NAMES.iter().any(|(shared, _)| name == shared);
    let twice: Vec<_> =
        names.files.iter().filter(|(name, files)| files.len() > 1 && !is_shared(name)).collect();
    assert!(twice.is_empty(), "{twice:#?}");
}

/// The files that declare each type.
#[derive(Default)]
struct TypeNames {
    file: PathBuf,
    files: BTreeMap<String, Vec<PathBuf>>,
}

impl TypeNames {
    fn add(&mut self, name: &syn::Ident) {
        self.files.entry(name.to_string()).or_default().push(self.file.clone());
    }
}

impl<'ast> Visit<'ast> for TypeNames {
    fn visit_item_enum(&mut self, item: &'ast ItemEnum) {
        self.add(&item.ident);
        visit::visit_item_enum(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        self.add(&item.ident);
        visit::visit_item_struct(self, item);
    }

    fn visit_item_trait(&mut self, item: &'ast ItemTrait) {
        self.add(&item.ident);
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &'ast ItemType) {
        self.add(&item.ident);
        visit::visit_item_type(self, item);
    }

    fn visit_item_union(&mut self, item: &'ast ItemUnion) {
        self.add(&item.ident);
        visit::visit_item_union(self, item);
    }
}

/// The words of a text in lower case, with their lines. Identifiers are split into their words.
fn words(text: &str) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let mut word = String::new();
        let mut last_is_lower = false;
        for character in line.chars().chain([' ']) {
            let begins = character.is_ascii_uppercase() && last_is_lower;
            if (begins || !character.is_ascii_alphabetic()) && !word.is_empty() {
                words.push((number + 1, std::mem::take(&mut word)));
            }
            if character.is_ascii_alphabetic() {
                word.push(character.to_ascii_lowercase());
            }
            last_is_lower = character.is_ascii_lowercase();
        }
    }
    words
}

/// All Rust files in a folder, without build directories.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(path) = open.pop() {
        if path.is_dir() && !path.ends_with("target") {
            open.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
