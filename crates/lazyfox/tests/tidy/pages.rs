//! Documents: links, and what they say of the program.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Source, none, read, root, sources};

/// Targets of `[text](target)`, outside of code blocks.
fn links(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if !in_block {
            let ends = line.match_indices("](").map(|(at, it)| at + it.len());
            found.extend(ends.filter_map(|at| line[at..].split(')').next()));
        }
    }
    found
}

/// The anchors that headings give, as code hosts make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}

#[test]
fn links_lead_somewhere_and_every_page_is_linked() {
    let mut problems = Vec::new();
    let mut linked = BTreeSet::new();
    for Source { path, text } in sources(".md") {
        let dir = Path::new(&path).parent().unwrap_or(Path::new(""));
        for link in links(&text) {
            if link.starts_with("http") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                PathBuf::from(&path)
            } else {
                dir.join(file)
            };
            let Ok(target) = root().join(target).canonicalize() else {
                problems.push(format!("{path}: {link} does not exist"));
                continue;
            };
            let known =
                || fs::read_to_string(&target).is_ok_and(|it| anchors(&it).contains(anchor));
            if !anchor.is_empty() && !known() {
                problems.push(format!("{path}: {link} has no such heading"));
            }
            if !file.is_empty() {
                linked.insert(target);
            }
        }
    }
    for Source { path, .. } in sources(".md") {
        if !path.starts_with("docs/") {
            continue;
        }
        let page = root().join(&path).canonicalize().expect("it was just read");
        if !linked.contains(&page) {
            problems.push(format!("{path} is linked from no page"));
        }
    }
    none(
        problems,
        "correct these links, and link new pages from README.md or a page beside them",
    );
}

#[test]
fn the_changelog_has_a_place_for_the_next_change() {
    assert!(
        read("CHANGELOG.md")
            .lines()
            .any(|line| line == "## [Unreleased]"),
        "CHANGELOG.md needs the heading \"## [Unreleased]\""
    );
}

fn help(command: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_lazyfox"))
        .args(command)
        .arg("--help")
        .output()
        .expect("the program runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The words after each `lazyfox`, or after cargo's `--`, up to the end of the code.
fn invocations(text: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    for line in text.lines() {
        for call in ["lazyfox ", "cargo run --release -- "] {
            for (at, _) in line.match_indices(call) {
                let rest = &line[at + call.len()..];
                let end = rest.find(['`', '|', '#', ';']).unwrap_or(rest.len());
                found.push(rest[..end].split_whitespace().collect());
            }
        }
    }
    found
}

#[test]
fn flags_in_documents_exist() {
    let top = help(&[]);
    let mut problems = Vec::new();
    for Source { path, text } in sources(".md") {
        for words in invocations(&text) {
            // `sudo -u lazyfox lazyfox …` has the word twice.
            let twice = usize::from(words.first() == Some(&"lazyfox"));
            let Some((&command, rest)) = words[twice..].split_first() else {
                continue;
            };
            if !top.contains(&format!("\n  {command} ")) {
                continue;
            }
            let mut known = help(&[command]);
            if command == "key" {
                known.push_str(&help(&[command, rest.first().copied().unwrap_or("list")]));
            }
            for flag in rest.iter().filter(|word| word.starts_with("--")) {
                let flag = flag.trim_end_matches(['.', ',', ')']);
                if !known.contains(&format!("{flag} ")) && !known.contains(&format!("{flag}\n")) {
                    problems.push(format!("{path}: lazyfox {command} has no {flag}"));
                }
            }
        }
    }
    none(problems, "name the flags as `lazyfox COMMAND --help` does");
}
