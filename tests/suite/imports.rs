//! Imports between the library's parts go the way that ARCHITECTURE.md says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::common::root;

/// What the sentence in ARCHITECTURE.md begins with.
const SENTENCE: &str = "Imports point one way: ";

/// The rank of each part by that sentence: a part may import from lower ranks only.
fn ranks(architecture: &str) -> BTreeMap<String, usize> {
    let (_, rest) = architecture.split_once(SENTENCE).expect("ARCHITECTURE.md has the sentence");
    let (sentence, _) = rest.split_once('.').expect("it ends");
    let groups = sentence.split('←').enumerate();
    let names = groups.flat_map(|(rank, group)| {
        group.split('`').skip(1).step_by(2).map(move |name| (name.to_owned(), rank))
    });
    names.collect()
}

/// Parts by the names that `lib.rs` re-exports from them at the top.
fn reexported(library: &str) -> BTreeMap<String, String> {
    let uses = library.lines().filter_map(|line| line.strip_prefix("pub use ")?.strip_suffix(';'));
    let split = uses.filter_map(|path| path.split_once("::"));
    let names = split.flat_map(|(part, names)| {
        let names = names.trim_matches(['{', '}']).split(", ");
        names.map(move |name| (name.to_owned(), part.to_owned()))
    });
    names.collect()
}

/// The Rust files under `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("readable").map(|entry| entry.expect("an entry").path());
    let files = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// Names after `crate::` in the code of `text`, comments aside; an empty one before a brace.
fn imported(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1)).map(|rest| {
        let end = rest.find(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
        &rest[..end.unwrap_or(rest.len())]
    })
}

/// What of `text`, a file of `part`, goes against the ranks.
fn against(
    text: &str,
    part: &str,
    ranks: &BTreeMap<String, usize>,
    reexported: &BTreeMap<String, String>,
) -> Vec<String> {
    let Some(own) = ranks.get(part) else { return vec![format!("ARCHITECTURE.md does not rank `{part}`")] };
    let parts = imported(text).map(|name| reexported.get(name).map_or(name, |part| part));
    let wrong = parts.filter(|&other| other != part && ranks.get(other).is_none_or(|rank| rank >= own));
    wrong
        .map(|other| match other {
            "" => "imports from several parts in one `use`; expected one `use` for each".to_owned(),
            _ => format!("`{part}` imports `{other}`"),
        })
        .collect()
}

#[test]
fn imports_point_one_way() {
    let read = |path: &Path| fs::read_to_string(path).expect("UTF-8");
    let ranks = ranks(&read(&root().join("ARCHITECTURE.md")));
    let reexported = reexported(&read(&root().join("src/lib.rs")));
    let source = root().join("src");
    let mut failures = Vec::new();
    for path in sources(&source) {
        let inside = path.strip_prefix(&source).expect("under src").with_extension("");
        let part = inside.iter().next().and_then(|name| name.to_str()).expect("UTF-8").to_owned();
        // The program uses the library from outside.
        if ["lib", "main", "cli"].contains(&part.as_str()) {
            continue;
        }
        let wrong = against(&read(&path), &part, &ranks, &reexported);
        failures.extend(wrong.into_iter().map(|what| format!("{}: {what}", path.display())));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));

    for (text, part, want) in [
        ("use crate::gpu::Adapter;", "engine", 1),
        ("fn f() -> crate::Model {}", "flow", 1),
        ("use crate::cpu::Real;", "gpu", 1),
        ("use crate::nothing;", "cpu", 1),
        ("use crate::error::Error;", "nothing", 1),
        ("// use crate::gpu::Adapter;\nuse crate::{Error, Result};", "engine", 1),
        ("use crate::error::Error;\nuse crate::engine::Engine;", "engine", 0),
    ] {
        assert_eq!(against(text, part, &ranks, &reexported).len(), want, "{part}: {text}");
    }
}
