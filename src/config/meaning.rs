//! What the values mean together. Every check goes on where it can, so that one run finds every problem.

mod bounds;
mod callers;
mod limits;
mod permissions;
mod reach;
mod sockets;
mod tls;
mod upstream;

pub(super) use reach::secured;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use super::problems::one_line;
use super::raw::Written;
use super::value::Value;
use super::{Config, Origin, Register, Sandbox};
use crate::record::Absent;
use crate::telemetry;

const FOLDER: &str = "record.file.folder";

/// The whole; `None` only where a problem was told.
pub(super) fn config(written: &mut Written) -> Option<Config> {
    let mut warnings = Vec::new();
    let account = upstream::account(written, "upstream.account");
    let keys = upstream::keys(written, &mut warnings);
    let limits = limits::limits(written, &mut warnings);
    let issuer = upstream::issuer(
        written,
        account.as_deref(),
        limits.as_ref().map(|limits| &limits.rules),
    );
    let register = register(written, &mut warnings);
    let http = reach::http(written);
    let grpc = reach::grpc(written);
    let admin = reach::admin(written);
    reach::somewhere(written, &http, grpc.as_ref());
    let listeners = [
        ("http.listen", http.listen.as_slice()),
        ("grpc.listen", grpc.as_ref().map_or(&[], |it| &it.listen)),
        ("admin.listen", admin.as_ref().map_or(&[], |it| &it.listen)),
    ];
    reach::apart(written, listeners);
    let bounds = bounds::bounds(written);
    let callers = callers::callers(written);
    sockets::warnings(
        &http,
        grpc.as_ref(),
        admin.as_ref(),
        &callers,
        &mut warnings,
    );
    let peers = callers::peers(written);
    let audit = callers::audit(written);
    let tls = tls::files(written, &mut warnings);
    let doors = tls::Doors {
        http: &http,
        grpc: grpc.as_ref(),
        admin: admin.as_ref(),
    };
    doors.check(written, &callers, &mut warnings);
    let certified = tls.as_ref().is_some_and(|it| it.client_ca.is_some());
    callers::told_apart(&callers, &doors, certified, &mut warnings);
    let log = log(written);
    let sandbox = sandbox(written);
    let limits = limits?;
    let (register, absent) = register?;
    if register == Register::Memory {
        warnings.push(
            "record.register: with \"memory\" a restart forgets the token and the budget, and every mint waits for the blind pace"
                .to_owned(),
        );
    }
    Some(Config {
        account: account?,
        rules: limits.rules,
        short_lead: limits.short_lead,
        absent,
        register,
        issuer: issuer?,
        keys: keys?,
        http,
        grpc: grpc?,
        admin: admin?,
        bounds: bounds?,
        tls,
        callers,
        peers,
        audit,
        log,
        shutdown_deadline: written.length("shutdown.deadline")?,
        sandbox: sandbox?,
        warnings,
    })
}

fn register(written: &mut Written, warnings: &mut Vec<String>) -> Option<(Register, Absent)> {
    if written.text("record.register")? == "memory" {
        if written.is_written("record.absent") {
            let text = "it means nothing with record.register = \"memory\", which always starts without a past; leave it out";
            written.problem("record.absent", text);
        }
        return Some((Register::Memory, Absent::Forgetful));
    }
    let absent = match written.text("record.absent")?.as_str() {
        "wait" => Absent::Wait,
        _ => Absent::New,
    };
    let folder = PathBuf::from(written.text(FOLDER)?);
    if let Some((writers, mode)) = permissions::other_writers(&folder) {
        let place = folder.display();
        let text = format!(
            "{writers} may write to {place} (mode {mode:04o}), and so remove the record and with it what was spent; chmod 0700 {place}"
        );
        if written.flag("record.file.strict_permissions") {
            written.problem(FOLDER, text);
            return None;
        }
        warnings.push(one_line(&format!("{FOLDER}: {text}")));
    }
    Some((Register::File { folder }, absent))
}

fn log(written: &mut Written) -> telemetry::Settings {
    let format = written.text("log.format");
    let format = format.and_then(|name| telemetry::Format::named(&name));
    let level = written.text("log.level").unwrap_or_default();
    let filter = level
        .parse()
        .unwrap_or_else(|error: telemetry::NotAFilter| {
            written.problem("log.level", error.to_string());
            telemetry::Filter::default()
        });
    telemetry::Settings {
        format: format.unwrap_or_default(),
        filter,
    }
}

/// The sandbox's section; `None` only where a problem was told.
pub(super) fn sandbox(written: &mut Written) -> Option<Sandbox> {
    let listen: Option<SocketAddr> = written
        .text("sandbox.listen")
        .and_then(|text| text.parse().ok());
    if listen.is_none() {
        written.problem(
            "sandbox.listen",
            "not an IP address and a port; expected such as 127.0.0.1:7299 or [::1]:7299",
        );
    }
    let status = written
        .count("sandbox.over_budget_status")
        .and_then(|status| u16::try_from(status).ok());
    if !status.is_some_and(|status| [400, 429, 500].contains(&status)) {
        written.problem("sandbox.over_budget_status", "expected 429, 400 or 500");
    }
    let account = match written.entry("sandbox.account") {
        Some(_) => Some(upstream::account(written, "sandbox.account")?),
        None => None,
    };
    Some(Sandbox {
        listen: listen?,
        account,
        key_files: sandbox_keys(written),
        token_lifetime: written.length("sandbox.token_lifetime")?,
        window: written.length("sandbox.window")?,
        limit: NonZeroU32::new(written.count("sandbox.limit")?)?,
        over_budget_status: status?,
        failures_count: written.flag("sandbox.failures_count"),
        revokes_previous: written.flag("sandbox.revokes_previous"),
    })
}

fn sandbox_keys(written: &mut Written) -> Option<(PathBuf, PathBuf)> {
    let paths = ["sandbox.key_id_file", "sandbox.api_key_file"];
    match paths.map(|path| upstream::file_path(written, path)) {
        [Some(id), Some(key)] => return Some((id, key)),
        [Some(_), None] if !written.has_failed(paths[1]) => {
            written.problem(
                paths[1],
                "it is missing; the two key files of the sandbox come together",
            );
        }
        [None, Some(_)] if !written.has_failed(paths[0]) => {
            written.problem(
                paths[0],
                "it is missing; the two key files of the sandbox come together",
            );
        }
        _ => {}
    }
    None
}

/// What was written for a path, to be named in a problem: `40s`, or `40s by default`.
fn told(written: &Written, path: &str, value: &Value) -> String {
    let text = match value {
        Value::Length(length) => super::value::written(*length),
        other => other.to_toml(),
    };
    match written.entry(path).map(|entry| entry.origin) {
        None | Some(Origin::Default) => format!("{path} ({text} by default)"),
        Some(_) => format!("{path} ({text})"),
    }
}
