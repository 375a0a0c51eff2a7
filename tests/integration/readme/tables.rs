//! Tables that are held to the program and to the tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{blocks_of, document, generated, place};
use crate::harness::{Scale, World};
use crate::terminal::{golden_file, sh};

#[test]
fn every_rule_that_is_broken_on_purpose_is_named_and_no_other() {
    let text = document("tests/README.md");
    let laws = text.split("what breaks it on purpose |\n").nth(1).unwrap();
    let rows = laws.lines().take_while(|line| line.starts_with('|'));
    let breaks = rows.filter_map(|row| row.rsplit('|').nth(1));
    let named: BTreeSet<&str> = breaks
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    let patches = fs::read_dir(place("tests/mutations")).unwrap();
    let mut there: BTreeSet<String> = patches
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| Some(name.strip_suffix(".patch")?.to_owned()))
        .collect();
    let edges = fs::read_to_string(place("tests/simulation/edges.rs")).unwrap();
    let wrapped = edges.split("    broken(Edge::").skip(1);
    there.extend(wrapped.map(|rest| rest.split(',').next().unwrap().to_owned()));
    assert!(there.len() > 20);
    assert_eq!(named, there.iter().map(String::as_str).collect());
}

#[test]
fn whoever_is_stopped_is_stopped_by_tests_that_exist() {
    let text = document("deploy/threat-model.md");
    let rows = text.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut named = 0;
    for row in rows {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let modules = cell
            .split('`')
            .skip(1)
            .step_by(2)
            .flat_map(str::split_whitespace);
        for module in modules {
            let file = place(&format!("tests/integration/{module}.rs"));
            assert!(file.is_file(), "{module} in: {row}");
            named += 1;
        }
    }
    assert!(named >= 15, "{named}");
}

/// One family of `/metrics`.
#[derive(Default)]
struct Family {
    kind: String,
    help: String,
    /// Each label with its values.
    labels: BTreeMap<String, BTreeSet<String>>,
}

/// Adds the families of this text to those at hand.
fn read_families(metrics: &str, families: &mut BTreeMap<String, Family>) {
    let mut current = String::new();
    for line in metrics.lines() {
        if let Some((name, help)) = line
            .strip_prefix("# HELP ")
            .and_then(|it| it.split_once(' '))
        {
            families.entry(name.to_owned()).or_default().help = help.to_owned();
        } else if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|it| it.split_once(' '))
        {
            families.entry(name.to_owned()).or_default().kind = kind.to_owned();
            current = name.to_owned();
        } else if let Some((_, rest)) = line.split_once('{') {
            let labels = rest.rsplit_once("\"}").unwrap().0;
            let family = families.get_mut(&current).unwrap();
            for (name, value) in labels.split("\",").map(|it| it.split_once("=\"").unwrap()) {
                let values = family.labels.entry(name.to_owned()).or_default();
                values.insert(value.to_owned());
            }
            family.labels.remove("le");
        }
    }
}

/// A label, and its values where they are the same in every version.
fn label(name: &str, values: &BTreeSet<String>) -> String {
    match name {
        "version" => format!("`{name}`"),
        _ => {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            format!("`{name}`: {}", values.join(", "))
        }
    }
}

/// What is there before anything has happened is all that there will ever be.
#[tokio::test]
async fn the_metrics_are_those_of_a_running_daemon() {
    let mut world = World::new(Scale::still()).await;
    let mut all = BTreeMap::new();
    let gate = world.sandbox.hold_mints();
    let daemon = world.start().await;
    gate.reached(1).await;
    let before = daemon.ask_admin("/metrics").await.text;
    gate.open();
    daemon.first_token().await;
    let after = daemon.ask_admin("/metrics").await.text;
    assert_eq!(series(&before), series(&after));
    read_families(&after, &mut all);
    assert!(daemon.stop().await.success());
    world.settings("[record]\nregister = \"memory\"");
    let daemon = world.start().await;
    read_families(&daemon.ask_admin("/metrics").await.text, &mut all);
    assert!(daemon.stop().await.success());
    let labels = |family: &Family| {
        let labels = family.labels.iter();
        let labels: Vec<String> = labels.map(|(name, values)| label(name, values)).collect();
        labels.join("; ")
    };
    let names: String = all
        .iter()
        .map(|(name, family)| format!("{name} {} {}\n", family.kind, labels(family)))
        .map(|line| line.replace('`', "").replace(" \n", "\n"))
        .collect();
    golden_file("metrics.txt", &names);
    let mut table = "| metric | type | labels | what it says |\n|---|---|---|---|\n".to_owned();
    for (name, family) in all.iter().filter(|(name, _)| name.starts_with("bearerd_")) {
        table.push_str(&format!(
            "| `{name}` | {} | {} | {} |\n",
            family.kind,
            labels(family),
            family.help
        ));
    }
    generated("deploy/metrics.md", "metrics", &table);
    world.finish();
}

/// The names and labels of every line, without the values.
fn series(metrics: &str) -> BTreeSet<&str> {
    let lines = metrics.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0).collect()
}

#[test]
fn the_alerts_are_rules_about_metrics_that_are_there() {
    let [rules] = &blocks_of("deploy/README.md", "yaml")[..] else {
        panic!("there is one block of rules")
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    fs::write(&file, rules).unwrap();
    let said = sh(&format!("promtool check rules '{}'", file.display()), &[]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let golden = document("tests/golden/metrics.txt");
    let known: BTreeSet<&str> = golden
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let mut named = 0;
    for name in rules.split(|it: char| !it.is_alphanumeric() && it != '_') {
        if name.starts_with("bearerd_") {
            assert!(known.contains(name), "{name}");
            named += 1;
        }
    }
    assert!(named >= 6, "{named}");
}
