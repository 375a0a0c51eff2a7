//! Every word for a failure has a row that says what to do.

use reqwest::Method;
use serde_json::Value;

use super::document;
use crate::harness::{Scale, World};

/// The words of the golden answers over gRPC, with their codes as the protocol names them.
fn codes(golden: &str) -> Vec<(String, String)> {
    let answers = golden.lines().filter_map(|line| line.strip_prefix("grpc "));
    answers
        .map(|line| {
            let mut parts = line.split(' ');
            let mut code = String::new();
            for letter in parts.next().unwrap().chars() {
                if letter.is_ascii_uppercase() && !code.is_empty() {
                    code.push('_');
                }
                code.push(letter.to_ascii_uppercase());
            }
            (parts.next().unwrap().to_ascii_lowercase(), code)
        })
        .collect()
}

/// The words of the golden problems with their statuses.
fn problems(golden: &str) -> Vec<(String, u16)> {
    let documents = golden.lines().filter(|line| line.starts_with('{'));
    documents
        .map(|line| {
            let document: Value = serde_json::from_str(line).unwrap();
            let word = document["type"].as_str().unwrap().rsplit(':').next();
            let status = document["status"].as_u64().unwrap();
            (word.unwrap().to_owned(), status.try_into().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn every_word_for_a_failure_has_its_row() {
    let text = document("deploy/troubleshooting.md");
    let rows: Vec<(&str, &str, &str)> = text
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            Some((cells.next()?, cells.next()?, cells.next()?))
        })
        .collect();
    let row = |word: &str| {
        let quoted = format!("`{word}`");
        let mut found = rows.iter().filter(|(words, ..)| words.contains(&quoted));
        found.next().unwrap_or_else(|| panic!("no row for {word}"))
    };
    let mut known = Vec::new();
    for golden in [
        include_str!("../../golden/api_problems.txt"),
        include_str!("../../golden/admin_problems.txt"),
    ] {
        for (word, status) in problems(golden) {
            let told = row(&word).1;
            assert!(told.contains(&status.to_string()), "{word}: {told}");
            known.push(word);
        }
        for (word, code) in codes(golden) {
            let told = row(&word).2;
            assert!(told.split(", ").any(|it| it == code), "{word}: {told}");
        }
    }

    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let metrics = daemon.ask_admin("/metrics").await.text;
    for (family, label) in [
        ("bearerd_refresh_attempts_total", "outcome"),
        ("bearerd_rejection_reports_total", "outcome"),
        ("bearerd_callers_refused_total", "reason"),
    ] {
        for line in metrics.lines().filter(|line| line.starts_with(family)) {
            let word = line.split_once(&format!("{label}=\"")).unwrap().1;
            known.push(word.split('"').next().unwrap().to_owned());
        }
    }
    let misdirected = daemon.send(Method::GET, &daemon.grpc, "/", &[], None).await;
    known.push(misdirected.unwrap().problem());
    let verbose = daemon.ask_admin("/readyz?verbose").await.text;
    for line in verbose.lines().skip(1) {
        known.push(line.split(": ").next().unwrap().to_owned());
    }
    for word in &known {
        row(word);
    }
    for (words, ..) in rows.iter().filter(|(words, ..)| words.contains('`')) {
        for word in words.split('`').skip(1).step_by(2) {
            assert!(known.iter().any(|it| it == word), "nothing says {word}");
        }
    }
    assert!(daemon.stop().await.success());
    world.finish();
}
