//! How long lines, functions and files may be.

use std::collections::BTreeMap;

use crate::{Source, none, root, sources};

/// Longest line of code, in characters; rustfmt keeps it where it can.
const LINE: usize = 100;
/// Longest line of a comment: rustfmt does not touch them, and some were longer when this began.
const COMMENT_LINE: usize = 110;
/// Longest file, in lines.
const FILE: usize = 500;
/// Longest function, in lines.
const FUNCTION: usize = 70;
/// Files that may be longer, how long, and why.
const LONG_FILES: [(&str, usize, &str); 2] = [
    (
        "crates/lazyfox-core/src/job.rs",
        785,
        "all states and events are decided in one place, to be read in one go",
    ),
    (
        "crates/lazyfox-core/src/job/tests.rs",
        510,
        "the other half of job.rs",
    ),
];

/// Functions that may be longer, and how long.
const LONG_FUNCTIONS: [(&str, &str, usize); 2] = [
    // One arm for each operation of a store, nothing else.
    (
        "crates/lazyfox-store/tests/it/histories/replay.rs",
        "step",
        101,
    ),
    ("crates/lazyfox-core/src/job.rs", "apply", 150),
];

#[test]
fn lines_fit() {
    let mut problems = Vec::new();
    for Source { path, text } in sources(".rs") {
        for (n, line) in text.lines().enumerate() {
            let length = line.chars().count();
            let is_comment = line.trim_start().starts_with("//");
            let limit = if is_comment { COMMENT_LINE } else { LINE };
            // rustfmt cannot break strings, and tables of them read best unbroken.
            if length > limit && (is_comment || !line.contains('"')) {
                problems.push(format!("{path}:{}: {length} characters", n + 1));
            }
        }
    }
    none(problems, "break these lines at 100 characters");
}

#[test]
fn files_can_be_read_in_one_go() {
    let mut problems = Vec::new();
    for Source { path, text } in sources(".rs") {
        let lines = text.lines().count();
        let exception = LONG_FILES.iter().find(|(name, ..)| *name == path);
        let limit = exception.map_or(FILE, |(_, limit, _)| *limit);
        if lines > limit {
            problems.push(format!("{path}: {lines} lines, allowed are {limit}"));
        } else if exception.is_some() && lines <= FILE {
            problems.push(format!("{path}: {lines} lines, take it off LONG_FILES"));
        }
    }
    for (name, _, why) in LONG_FILES {
        assert!(!why.is_empty(), "{name}: say why it is long");
        if !root().join(name).exists() {
            problems.push(format!("{name}: is gone, take it off LONG_FILES"));
        }
    }
    none(
        problems,
        "split these files where a stranger would look for the parts",
    );
}

/// Name and length of each function, found by the indentation that rustfmt gives it.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_head = [
            "fn ",
            "pub fn ",
            "pub(",
            "async fn ",
            "pub async fn ",
            "const fn ",
        ];
        let Some((_, name)) = code.split_once("fn ") else {
            continue;
        };
        if !is_head.iter().any(|head| code.starts_with(head)) && !code.starts_with("pub const fn ")
        {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        let closing = format!("{indent}}}");
        let declared = format!("{indent})");
        let end = lines[start..].iter().position(|line| {
            *line == closing || (line.starts_with(&declared) && line.ends_with(';'))
        });
        if code.ends_with(';') || code.ends_with("{}") {
            continue;
        }
        if let Some(length) = end {
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            let name = name.split(|c| !is_name(c)).next().unwrap_or_default();
            found.push((name.to_owned(), length + 1));
        }
    }
    found
}

#[test]
fn functions_fit_a_screen() {
    let mut problems = Vec::new();
    let mut long = BTreeMap::new();
    for Source { path, text } in sources(".rs") {
        for (name, lines) in functions(&text) {
            let mut exceptions = LONG_FUNCTIONS.iter();
            let exception = exceptions.find(|(file, it, _)| *file == path && *it == name);
            let limit = exception.map_or(FUNCTION, |(.., limit)| *limit);
            if lines > limit {
                problems.push(format!(
                    "{path}: {name} has {lines} lines, allowed are {limit}"
                ));
            }
            if lines > FUNCTION {
                long.insert(name, lines);
            }
        }
    }
    for (file, name, _) in LONG_FUNCTIONS {
        if !long.contains_key(name) {
            problems.push(format!(
                "{file}: {name} is short now, take it off LONG_FUNCTIONS"
            ));
        }
    }
    none(
        problems,
        "split these functions into steps that have a name",
    );
}
