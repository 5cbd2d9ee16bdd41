//! The repository checks itself: the arrows of the house, sizes, leftovers, links. Each failure says
//! how to put it right. Lists of exceptions are ratchets: they may shrink and not grow.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

mod pages;
mod sizes;

/// More packages than this are too many to know, and to build on two cores.
const PACKAGES: usize = 350;

struct Source {
    /// Below the root, with slashes.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// All files with this ending that belong to the project.
fn sources(ending: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for dir in ["crates", "xtask", "docs", "examples"] {
        walk(&root(), dir, ending, &mut found);
    }
    let top = fs::read_dir(root()).expect("the root can be read");
    for name in top
        .flatten()
        .filter_map(|it| it.file_name().into_string().ok())
    {
        if name.ends_with(ending) {
            let text = read(&name);
            found.push(Source { path: name, text });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "no {ending} files: is the test lost?");
    found
}

fn walk(root: &Path, dir: &str, ending: &str, found: &mut Vec<Source>) {
    for entry in fs::read_dir(root.join(dir)).into_iter().flatten().flatten() {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = format!("{dir}/{name}");
        if entry.path().is_dir() {
            if !name.starts_with('.') && name != "target" && name != "node_modules" {
                walk(root, &path, ending, found);
            }
        } else if name.ends_with(ending) {
            let text = read(&path);
            found.push(Source { path, text });
        }
    }
}

#[track_caller]
fn none(problems: Vec<String>, what_to_do: &str) {
    assert!(
        problems.is_empty(),
        "{what_to_do}\n  {}",
        problems.join("\n  ")
    );
}

/// Lines of a table of a manifest, such as `[dependencies]`, without comments.
fn table<'a>(manifest: &'a str, name: &str) -> Vec<&'a str> {
    let lines = manifest.lines().skip_while(|line| line.trim() != name);
    let body = lines.skip(1).take_while(|line| !line.starts_with('['));
    body.map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect()
}

/// The code without its comments. A `//` in a string ends the line too early, which hides no path.
fn code(text: &str) -> String {
    let lines = text.lines();
    lines
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Names that stand in `use` statements or beside `::`.
fn named(text: &str) -> BTreeSet<String> {
    let text = code(text);
    let mut names = BTreeSet::new();
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut is_use = false;
    let mut rest = text.as_str();
    while let Some(start) = rest.find(is_name) {
        let before = &rest[..start];
        let end = rest[start..].find(|c| !is_name(c));
        let (word, after) = rest[start..].split_at(end.unwrap_or(rest.len() - start));
        is_use = (is_use && !before.contains(';')) || word == "use";
        if is_use || before.ends_with("::") || after.starts_with("::") {
            names.insert(word.to_owned());
        }
        rest = after;
    }
    names
}

fn is_within(path: &str, module: &str) -> bool {
    let file = format!("crates/lazyfox/src/{module}.rs");
    let dir = format!("crates/lazyfox/src/{module}/");
    path == file || path.starts_with(&dir)
}

/// Modules of `lazyfox` that must not name these.
fn naming(modules: &[&str], forbidden: &[&str]) -> Vec<String> {
    let mut problems = Vec::new();
    for Source { path, text } in sources(".rs") {
        if modules.iter().any(|module| is_within(&path, module)) {
            let names = named(&text);
            let hits = forbidden.iter().filter(|name| names.contains(**name));
            problems.extend(hits.map(|name| format!("{path} names {name}")));
        }
    }
    problems
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

#[test]
fn core_depends_on_nothing() {
    let manifest = read("crates/lazyfox-core/Cargo.toml");
    let mut problems: Vec<String> = Vec::new();
    for name in ["[dependencies]", "[build-dependencies]"] {
        let lines = table(&manifest, name).into_iter();
        problems.extend(lines.map(|line| format!("{name} {line}")));
    }
    let targets = manifest.lines().filter(|line| line.starts_with("[target"));
    problems.extend(targets.map(str::to_owned));
    none(
        problems,
        "lazyfox-core decides and needs nothing for it: pass the value in, or do it in lazyfox",
    );
}

#[test]
fn the_store_depends_on_core_and_not_on_the_server() {
    let manifest = read("crates/lazyfox-store/Cargo.toml");
    let lines = table(&manifest, "[dependencies]");
    assert!(
        lines.iter().any(|line| line.starts_with("lazyfox-core")),
        "lazyfox-store asks lazyfox-core: keep that dependency"
    );
    let is_server = |line: &&&str| line.starts_with("lazyfox.") || line.starts_with("lazyfox ");
    let problems = lines
        .iter()
        .filter(is_server)
        .map(|line| (*line).to_owned());
    none(
        problems.collect(),
        "the store knows nothing of the server: move what both need into core",
    );
}

#[test]
fn api_and_passes_never_name_each_other() {
    let mut problems = naming(&["api"], &["passes"]);
    problems.extend(naming(&["passes"], &["api"]));
    none(
        problems,
        "api and passes meet in App only: put what both need there, or wake the other side",
    );
}

#[test]
fn providers_and_webhooks_know_only_the_outside() {
    let forbidden = ["lazyfox_store", "app", "api", "passes"];
    none(
        naming(&["providers", "webhooks"], &forbidden),
        "providers and webhooks report what they see: let their caller ask the store",
    );
}

#[test]
fn the_worker_knows_its_server_by_http_alone() {
    let forbidden = ["lazyfox_store", "app", "api", "passes", "fleet"];
    none(
        naming(&["worker"], &forbidden),
        "a worker may be on another machine than its server: let it ask by a call of the worker API",
    );
}

#[test]
fn nothing_is_left_over() {
    // In two pieces, or this file would find itself.
    let leftovers = [
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
        concat!("FIX", "ME"),
        concat!("dbg", "!("),
    ];
    let mut problems = Vec::new();
    for Source { path, text } in sources(".rs") {
        for (n, line) in text.lines().enumerate() {
            let hits = leftovers.iter().filter(|it| line.contains(**it));
            problems.extend(hits.map(|it| format!("{path}:{}: {it}", n + 1)));
        }
    }
    none(
        problems,
        "finish these, or open an issue and say what is missing",
    );
}

#[test]
fn tests_wait_for_signals_and_not_for_time() {
    let call = concat!("sleep", "(");
    let mut problems = Vec::new();
    for Source { path, text } in sources(".rs") {
        let text = code(&text);
        let inline = text.find("#[cfg(test)]\nmod tests {");
        let tests = if is_test(&path) {
            text.as_str()
        } else {
            inline.map_or("", |start| &text[start..])
        };
        if tests.contains(call) {
            problems.push(path);
        }
    }
    none(
        problems,
        "move the clock, or wait for what the test is about: a sleep is too short on a busy machine",
    );
}

#[test]
fn every_file_says_what_it_is_for() {
    let files = sources(".rs").into_iter();
    // Tests beside the code are explained by the file that they test.
    let silent = files.filter(|it| !it.text.starts_with("//!") && !it.path.ends_with("/tests.rs"));
    none(
        silent.map(|it| it.path).collect(),
        "begin these files with a `//!` sentence that says what they are for",
    );
}

#[test]
fn packages_can_be_counted() {
    let packages = read("Cargo.lock")
        .lines()
        .filter(|line| *line == "[[package]]")
        .count();
    assert!(
        packages < PACKAGES,
        "{packages} packages in Cargo.lock, fewer than {PACKAGES} are allowed: switch features off, \
         or write the few lines that are needed"
    );
}
