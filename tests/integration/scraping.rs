//! A real Prometheus scrapes the daemon, and finds what `deploy/metrics.md` says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::harness::{Daemon, PATIENCE, Scale, World};
use crate::terminal::Process;

/// A row of its table.
struct Row {
    kind: String,
    labels: Vec<(String, Vec<String>)>,
    help: String,
}

fn documented() -> BTreeMap<String, Row> {
    let document = include_str!("../../deploy/metrics.md");
    let table = document.split("<!-- metrics -->\n").nth(1).unwrap();
    let table = table.split("<!-- /metrics -->").next().unwrap();
    let rows = table.lines().skip(2).map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, kind, labels, help] = cells[..] else {
            panic!("not four cells: {line}")
        };
        let labels = labels.split("; ").filter(|it| !it.is_empty()).map(|label| {
            let (name, values) = label.split_once(": ").unwrap_or((label, ""));
            let values = values.split(", ").filter(|it| !it.is_empty());
            (
                name.trim_matches('`').into(),
                values.map(str::to_owned).collect(),
            )
        });
        let row = Row {
            kind: kind.into(),
            labels: labels.collect(),
            help: help.into(),
        };
        (name.trim_matches('`').to_owned(), row)
    });
    rows.collect()
}

/// Prometheus in a folder of the test's own, on a port that the system chose, and the daemon that it scrapes.
struct Scraped<'a> {
    daemon: &'a Daemon,
    prometheus: Process,
    address: String,
    _folder: TempDir,
}

impl<'a> Scraped<'a> {
    fn start(daemon: &'a Daemon) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = format!(
            "global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}\n\
             scrape_configs: [{{job_name: bearerd, static_configs: [{{targets: [{:?}]}}]}}]\n",
            daemon.admin
        );
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, settings).unwrap();
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0");
        let mut prometheus = Process::start(command);
        let address = prometheus.until("Prometheus listens", |it| {
            let said = it.err();
            let line = said
                .lines()
                .find(|line| line.contains("msg=\"Listening on\""))?;
            Some(line.split_once("address=")?.1.trim().to_owned())
        });
        Self {
            daemon,
            prometheus,
            address,
            _folder: folder,
        }
    }

    async fn ask(&self, path: &str) -> Value {
        let asked = self
            .daemon
            .send(Method::GET, &self.address, path, &[], None);
        // It listens a moment before it answers.
        asked
            .await
            .ok()
            .filter(|reply| reply.status == 200)
            .map_or(Value::Null, |reply| reply.json()["data"].take())
    }

    /// Asks again and again until the query has a result.
    async fn query(&self, query: &str) -> Vec<Value> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/api/v1/query?query={encoded}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(&path).await;
            if let Some(found) = answer["result"].as_array().filter(|it| !it.is_empty()) {
                return found.clone();
            }
            assert!(
                Instant::now() < deadline,
                "{query}: {answer}\n{}",
                self.prometheus.err()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn prometheus_finds_every_documented_metric() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let scraped = Scraped::start(&daemon);
    scraped.query("up == 1").await;
    let documented = documented();
    assert!(documented.len() >= 19);

    let metadata = scraped.ask("/api/v1/targets/metadata").await;
    let rows = metadata.as_array().unwrap().iter();
    let told: BTreeMap<&str, (&str, &str)> = rows
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap();
            (text("metric"), (text("type"), text("help")))
        })
        .filter(|(name, _)| name.starts_with("bearerd_"))
        .collect();
    let written = documented
        .iter()
        .map(|(name, row)| (name.as_str(), (row.kind.as_str(), row.help.as_str())));
    assert_eq!(told, written.collect());

    let series = scraped.query("{__name__=~\"bearerd_.+\"}").await;
    for (name, row) in &documented {
        let names: &[&str] = match row.kind.as_str() {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        for suffix in names {
            let name = format!("{name}{suffix}");
            let of = |it: &&Value| it["metric"]["__name__"] == name.as_str();
            let found: Vec<&Value> = series.iter().filter(of).collect();
            assert!(!found.is_empty(), "{name}");
            for (label, values) in &row.labels {
                let seen = found.iter().map(|it| it["metric"][label].as_str().unwrap());
                let seen: BTreeSet<&str> = seen.collect();
                assert!(
                    values.is_empty()
                        || seen.iter().all(|it| values.iter().any(|value| value == it)),
                    "{name}: {label}: {seen:?}"
                );
            }
        }
    }
    drop(scraped);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn the_first_of_anything_is_an_increase_to_prometheus() {
    let mut world = World::new(Scale::still()).await;
    world.stop_sandbox().await;
    let daemon = world.start().await;
    let scraped = Scraped::start(&daemon);
    scraped.query("bearerd_token_usable == 0").await;
    // It has to have seen the zero before.
    let firsts = [
        "bearerd_refresh_attempts_total{outcome=\"minted\"}",
        "bearerd_callers_refused_total{reason=\"browser\"}",
        "bearerd_rejection_reports_total{outcome=\"not_a_refusal\"}",
        "bearerd_vends_total{outcome=\"ok\"}",
    ];
    for first in firsts {
        scraped.query(&format!("{first} == 0")).await;
    }
    world.start_sandbox().await;
    daemon.first_token().await;
    assert_eq!(
        daemon.get("/v1/token", &[("origin", "x")]).await.status,
        403
    );
    let report = daemon.report("{\"generation\": 1, \"status\": 403}").await;
    assert_eq!(report.status, 202);
    for first in firsts {
        scraped.query(&format!("increase({first}[1m]) > 0")).await;
    }
    scraped.query("bearerd_token_usable == 1").await;
    scraped
        .query("bearerd_token_expiry_timestamp_seconds - time() > 3000")
        .await;
    scraped
        .query("time() - bearerd_refresh_last_success_timestamp_seconds < 600")
        .await;
    drop(scraped);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn promtool_finds_nothing_to_mend() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    let metrics = daemon.ask_admin("/metrics").await.text;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(metrics.as_bytes()).unwrap();
    drop(stdin);
    let said = promtool.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&said.stderr) + String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && told.is_empty(), "{told}");
    assert!(daemon.stop().await.success());
    world.finish();
}
