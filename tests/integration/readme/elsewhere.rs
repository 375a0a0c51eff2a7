//! Commands that need a cluster, an init system, another account or a client that is not installed:
//! they are parsed, word by word, held to the files that they speak of, and counted.

use serde_json::Value;

use super::{document, place};
use crate::terminal::run;

/// The programs, and how many of their commands the documents show in blocks.
pub const PROGRAMS: &[(&str, usize)] = &[
    ("docker", 1),
    ("groupadd", 1),
    ("grpcurl", 4),
    ("kubectl", 7),
    ("systemctl", 4),
];

/// Returns the program of a command that could be run elsewhere.
pub fn parse(command: &str) -> &'static str {
    let words: Vec<&str> = command.split_whitespace().collect();
    let (program, _) = PROGRAMS
        .iter()
        .find(|(it, _)| *it == words[0])
        .unwrap_or_else(|| panic!("no rule for {command}"));
    let known = match words[..] {
        ["docker", "build", "-f", file, "-t", tag, "."] => {
            is_file(file) && tag.starts_with("bearerd:")
        }
        ["groupadd", "--system", group] => document("deploy/systemd/bearerd.service")
            .contains(&format!("SupplementaryGroups={group}\n")),
        ["systemctl", "enable", "--now", "bearerd"]
        | [
            "systemctl",
            "start" | "stop" | "restart" | "status",
            "bearerd",
        ] => is_file("deploy/systemd/bearerd.service"),
        // An option in a sentence.
        ["grpcurl", "-authority", "localhost"] => true,
        ["grpcurl", ref options @ .., address, call] => grpcurl(options, address, call),
        ["kubectl", ref words @ ..] => kubectl(words),
        _ => false,
    };
    assert!(known, "not as its program takes it: {command}");
    program
}

fn is_file(path: &str) -> bool {
    place(path).is_file()
}

fn grpcurl(options: &[&str], address: &str, call: &str) -> bool {
    let joined = options.join(" ");
    let (rest, message) = match joined.split_once("-d '") {
        Some((rest, message)) => (rest.trim(), message.trim_end_matches('\'')),
        None => (joined.as_str(), "{}"),
    };
    let files = "-cacert ca.crt -cert orders.crt -key orders.key";
    let (service, method) = call.split_once('/').unwrap();
    let proto = document("proto/bearerd/v1/token_service.proto");
    let port = if rest == files {
        "bearerd.shop.svc:7291"
    } else {
        "127.0.0.1:7291"
    };
    [files, "-plaintext"].contains(&rest)
        && address == port
        && serde_json::from_str::<Value>(message).is_ok()
        && service == "bearerd.v1.TokenService"
        && proto.contains(&format!("rpc {method}("))
}

/// Objects are named as the manifests name them.
fn kubectl(words: &[&str]) -> bool {
    let sidecar = document("deploy/kubernetes/sidecar.yaml");
    let has = |kind: &str, name: &str| {
        sidecar.contains(&format!("kind: {kind}\nmetadata:\n  name: {name}\n"))
    };
    let is_deployment = |text: &str| {
        let (kind, name) = text.split_once('/').unwrap();
        ["deploy", "deployment"].contains(&kind) && has("Deployment", name)
    };
    match words {
        ["create", "secret", "generic", name, files @ ..] => {
            let secret = document("deploy/examples/secret.yaml");
            let known = |it: &str| secret.contains(&format!("\n  {it}: "));
            let mut names = files.iter().map(|it| it.strip_prefix("--from-file="));
            secret.contains(&format!("  name: {name}\n")) && names.all(|it| it.is_some_and(known))
        }
        ["apply", "-f", file] => is_file(file) && document(file).contains("\nkind: "),
        ["rollout", "restart" | "undo" | "status", deployment] => is_deployment(deployment),
        ["logs", deployment, "-c", "bearerd"] => is_deployment(deployment),
        [
            "exec",
            deployment,
            "-c",
            "bearerd",
            "--",
            "bearerd",
            arguments @ ..,
        ] => {
            let mut arguments = arguments.to_vec();
            arguments.push("--help");
            is_deployment(deployment) && run(&arguments, &[]).code == Some(0)
        }
        _ => false,
    }
}

#[test]
fn a_slip_of_the_pen_is_noticed() {
    let slips = [
        "kubectl apply -f deploy/kubernetes/sidecars.yaml",
        "kubectl rollout restart deployment/other",
        "kubectl create secret generic bearerd-keys --from-file=keyid",
        "kubectl exec deploy/example -c bearerd -- bearerd state",
        "systemctl restarts bearerd",
        "grpcurl -plaintext 127.0.0.1:7291 bearerd.v1.TokenService/GetTokens",
        "docker build -f Containerfile -t bearerd:0.1.0 .",
        "groupadd --system callers",
    ];
    for slip in slips {
        let parsed = std::panic::catch_unwind(|| parse(slip));
        assert!(parsed.is_err(), "{slip}");
    }
}
