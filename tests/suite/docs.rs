//! README, ARCHITECTURE and the pages under `docs`: their length, links that lead somewhere, and flags that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::cli::succeed;
use super::common::root;

/// Most lines of README: what is longer has a page of its own.
const README_LINES: usize = 160;

/// The programs that pages call beside moonflow, whose flags are not ours.
const OTHERS: [&str; 2] = ["cargo ", "benches/"];

/// README, ARCHITECTURE and every page, by path, with its text.
fn pages() -> BTreeMap<PathBuf, String> {
    let listed =
        fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("an entry").path());
    let docs = listed.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let all = [root().join("README.md"), root().join("ARCHITECTURE.md")].into_iter().chain(docs);
    let pages: BTreeMap<_, _> =
        all.map(|path| (path.clone(), fs::read_to_string(&path).expect("UTF-8"))).collect();
    assert!(pages.len() > 5, "there are pages: {:?}", pages.keys());
    pages
}

/// Targets of the links in `page`, inline ones of Markdown: `[text](target)`.
fn links(page: &str) -> Vec<&str> {
    let targets = page.split("](").skip(1);
    targets.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// Names of the headings in `page`, as links spell them: lower case, hyphens for spaces, no punctuation.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut code = false;
    let headings = page.lines().filter_map(|line| {
        code ^= line.starts_with("```");
        line.strip_prefix('#').filter(|_| !code)
    });
    let spelled = |heading: &str| -> String {
        let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        text.chars().filter(|&letter| letter.is_alphanumeric() || letter == '-' || letter == '_').collect()
    };
    headings.map(spelled).collect()
}

/// What is wrong with the link `target` of the page `from`, if anything.
fn broken(pages: &BTreeMap<PathBuf, String>, from: &Path, target: &str) -> Option<String> {
    if target.starts_with("https://") {
        return None;
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let folder = from.parent().expect("a page lies in a folder");
    let path = if file.is_empty() { from.to_owned() } else { folder.join(file) };
    let Ok(path) = path.canonicalize() else { return Some(format!("there is no file `{file}`")) };
    let page = pages.iter().find(|(page, _)| page.canonicalize().is_ok_and(|page| page == path));
    let (anchor, (_, page)) = anchor.zip(page)?;
    (!anchors(page).contains(anchor)).then(|| format!("`{file}` has no heading `{anchor}`"))
}

/// The flags `--name` in `text`.
fn flags(text: &str) -> impl Iterator<Item = &str> {
    text.split("--").skip(1).filter_map(|rest| {
        let end =
            rest.find(|letter: char| !(letter.is_ascii_lowercase() || letter == '-')).unwrap_or(rest.len());
        let flag = rest[..end].trim_end_matches('-');
        (!flag.is_empty()).then_some(flag)
    })
}

/// What moonflow is told by the command line `line`, of which `cargo run … --` and a prompt's `$` are no part; `None`
/// where another program is called.
fn for_moonflow(line: &str) -> Option<&str> {
    let line = line.trim_start_matches("$ ");
    let line = line.split_once('#').map_or(line, |(command, _)| command);
    match line.strip_prefix("cargo run --release -- ") {
        Some(rest) => Some(rest),
        None if OTHERS.iter().any(|other| line.starts_with(other)) => None,
        None => Some(line),
    }
}

/// Which flags of `page` no command has; `known` has those of each command by its name.
fn unknown_flags(page: &str, known: &BTreeMap<&str, BTreeSet<String>>) -> Vec<String> {
    let mut unknown = Vec::new();
    for line in page.lines() {
        // Code spans of prose, or a whole line of console.
        let spans: Vec<&str> =
            if line.starts_with("$ ") { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        for span in spans.into_iter().filter_map(for_moonflow) {
            let command = span.trim_start_matches("moonflow ").split(' ').next().unwrap_or_default();
            let of_command = known.get(command);
            let exists = |flag: &str| match of_command {
                Some(flags) => flags.contains(flag),
                None => known.values().any(|flags| flags.contains(flag)),
            };
            unknown
                .extend(flags(span).filter(|flag| !exists(flag)).map(|flag| format!("--{flag} in `{span}`")));
        }
    }
    unknown
}

#[test]
fn readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).expect("README").lines().count();
    assert!(
        lines <= README_LINES,
        "README has {lines} lines, expected at most {README_LINES}: move some to docs/"
    );
}

#[test]
fn links_lead_somewhere() {
    let pages = pages();
    let mut failures = Vec::new();
    let mut count = 0;
    for (path, text) in &pages {
        for target in links(text) {
            count += 1;
            failures.extend(
                broken(&pages, path, target).map(|why| format!("{}: {target}: {why}", path.display())),
            );
        }
    }
    assert!(count > 30, "links are found, got {count}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));

    let readme = root().join("README.md");
    assert!(broken(&pages, &readme, "docs/nothing.md").is_some_and(|why| why.contains("no file")));
    assert!(broken(&pages, &readme, "docs/flows.md#nothing").is_some_and(|why| why.contains("no heading")));
    assert_eq!(broken(&pages, &readme, "docs/flows.md#couplings"), None);
}

/// The section of `page` under this heading.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).expect("there is the section");
    rest.split("\n## ").next().expect("split yields a first")
}

/// The text of every file under `folder`.
fn texts(folder: &Path) -> String {
    let entries = fs::read_dir(folder).expect("readable").map(|entry| entry.expect("an entry").path());
    let text = |path: PathBuf| match path.is_dir() {
        true => texts(&path),
        false => fs::read_to_string(&path).expect("UTF-8"),
    };
    entries.map(text).collect::<Vec<_>>().join("\n")
}

/// The code spans of `text` that lead nowhere: paths of files that are not there, and names of functions, types or
/// modules, the last of which `code` does not define.
fn lost_signposts<'a>(text: &'a str, code: &str) -> Vec<&'a str> {
    let defined = |name: &str| {
        let words = ["fn", "struct", "enum", "trait", "mod"];
        words.iter().any(|word| {
            code.match_indices(&format!("{word} {name}")).any(|(at, found)| {
                !code[at + found.len()..].starts_with(|next: char| next.is_alphanumeric() || next == '_')
            })
        })
    };
    let exists = |span: &str| match span.contains('/') {
        true => root().join(span).exists(),
        false => span.rsplit("::").next().is_some_and(defined),
    };
    let spans = text.split('`').skip(1).step_by(2);
    // Commands are no signposts.
    spans.filter(|&span| span != "train" && !exists(span)).collect()
}

#[test]
fn the_path_of_a_batch_is_there_to_be_followed() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("UTF-8");
    let text = section(&architecture, "A batch, from `train` to the model file");
    let code = texts(&root().join("src")) + &texts(&root().join("shaders"));
    assert!(text.split('`').count() > 80, "signposts are found");
    assert_eq!(lost_signposts(text, &code), [""; 0]);
    let changed = "`run_epoch`, `src/gpu/epoch.rs`, `CpuEngine::train`, `gather`";
    assert_eq!(lost_signposts(changed, &code), ["run_epoch", "src/gpu/epoch.rs"]);
}

#[test]
fn every_page_is_linked_from_the_readme() {
    let pages = pages();
    let readme = &pages[&root().join("README.md")];
    let names = pages.keys().filter_map(|path| path.file_name()?.to_str());
    let missing: Vec<_> = names.filter(|&name| name != "README.md" && !readme.contains(name)).collect();
    assert!(missing.is_empty(), "README links none of {missing:?}");
}

#[test]
fn flags_exist() {
    let folder = super::cli::folder();
    let commands =
        ["train", "inspect", "score", "sample", "plot", "info", "devices", "plan", "completions", "man"];
    let known: BTreeMap<&str, BTreeSet<String>> = commands
        .into_iter()
        .map(|command| {
            let help = succeed(folder.path(), &[command, "--help"]);
            (command, flags(&help).map(str::to_owned).collect())
        })
        .collect();
    let failures: Vec<_> = pages()
        .iter()
        .flat_map(|(path, text)| {
            let unknown = unknown_flags(text, &known);
            unknown.into_iter().map(move |what| format!("{}: {what}", path.display()))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));

    for (page, want) in [
        ("$ moonflow train --epoch 3", 1),
        ("With `--gaussianize` and `--bounds`", 1),
        ("$ moonflow sample --epochs 3", 1),
        ("$ cargo run --release -- train --nothing", 1),
        ("$ cargo bench --quick", 0),
        ("$ moonflow train --epochs 3", 0),
    ] {
        assert_eq!(unknown_flags(page, &known).len(), want, "{page}");
    }
}
