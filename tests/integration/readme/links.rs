//! Links between documents lead to files and headings that are there, and every document can be
//! reached.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use super::{document, documents, place};

/// The text outside fenced blocks.
fn prose(text: &str) -> String {
    text.split("\n```")
        .step_by(2)
        .collect::<Vec<_>>()
        .join("\n")
}

/// What links point at, as it is written.
fn targets(text: &str) -> Vec<String> {
    let prose = prose(text);
    let links = prose.split("](").skip(1);
    links
        .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
        .filter(|it| !it.contains("://"))
        .collect()
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let prose = prose(text);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            words
                .chars()
                .filter(|it| it.is_alphanumeric() || " -_".contains(*it))
                .map(|it| if it == ' ' { '-' } else { it })
                .collect()
        })
        .collect()
}

/// A path as it is written in a document, from the repository's root.
fn resolved(from: &str, path: &str) -> String {
    let folder = Path::new(from).parent().unwrap();
    let mut parts = Vec::new();
    for part in folder.join(path).components() {
        match part {
            Component::ParentDir => assert!(parts.pop().is_some(), "{from}: {path}"),
            Component::Normal(name) => parts.push(name.to_str().unwrap().to_owned()),
            other => panic!("{from}: {path}: {other:?}"),
        }
    }
    parts.join("/")
}

/// Checks the links of a document and returns the files that they lead to.
fn follow(name: &str, text: &str) -> Result<Vec<String>, String> {
    let mut reached = Vec::new();
    for target in targets(text) {
        let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
        let file = if path.is_empty() {
            name.to_owned()
        } else {
            resolved(name, path)
        };
        if !place(&file).exists() {
            return Err(format!("{name}: nothing is at {target}"));
        }
        let other = if path.is_empty() {
            text.to_owned()
        } else {
            String::new()
        };
        let there = anchor.is_empty()
            || anchors(&other).contains(anchor)
            || (file.ends_with(".md") && anchors(&document(&file)).contains(anchor));
        if !there {
            return Err(format!("{name}: no such heading: {target}"));
        }
        reached.push(file);
    }
    Ok(reached)
}

#[test]
fn every_link_leads_somewhere_and_every_document_is_reached() {
    let (mut reached, mut links) = (BTreeSet::new(), 0);
    let mut next = vec!["README.md".to_owned()];
    while let Some(name) = next.pop() {
        if !reached.insert(name.clone()) || !name.ends_with(".md") {
            continue;
        }
        let found = follow(&name, &document(&name)).unwrap_or_else(|error| panic!("{error}"));
        links += found.len();
        next.extend(found);
    }
    let lost: Vec<String> = documents()
        .into_iter()
        .filter(|it| !reached.contains(it))
        .collect();
    assert!(lost.is_empty(), "nothing links to {lost:?}");
    assert!(links >= 20, "{links}");
}

#[test]
fn a_link_that_leads_nowhere_is_noticed() {
    for bad in [
        "[a](deploy/setings.md)",
        "[a](README.md#no-such-heading)",
        "[a](#neither)",
    ] {
        assert!(follow("README.md", bad).is_err(), "{bad}");
    }
    assert!(follow("deploy/README.md", "# A b\n[a](../README.md) [b](#a-b)").is_ok());
}
