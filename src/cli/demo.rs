//! `demo`: the daemon and a sandbox in one process, with a real record in a temporary folder.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::serve::{bind_or_hint, in_runtime, live, until_signalled};
use super::{Console, Demo, Exit, with_causes};
use crate::app::{App, BindError};
use crate::config::{self, Flag, Reading, Sources};
use crate::listener::{self, Address};
use crate::sandbox::{ApiKey, Bound, Sandbox, Settings};
use crate::telemetry;
use crate::vend::{Status, Vend};

/// The account that the sandbox knows.
const ACCOUNT: &str = "demo";

pub(super) fn run(demo: &Demo, console: &mut Console<'_>) -> Exit {
    let stop = CancellationToken::new();
    in_runtime(until_signalled(&stop, show(demo, &stop, console)))
}

async fn show(demo: &Demo, stop: &CancellationToken, console: &mut Console<'_>) -> Exit {
    let flags = demo.flags();
    let settings = match config::read_sandbox(&Sources::flags_only(flags.clone())) {
        Ok(settings) => sandbox_settings(&settings),
        Err(problems) => return tell(&problems, console),
    };
    let key = settings.keys[0].clone();
    let sandbox = match Sandbox::bind(settings).await {
        Ok(sandbox) => sandbox,
        Err(error) => {
            let why = with_causes(&error);
            return console.fail(&format!(
                "{why}; is a demo running already? --sandbox-listen names another address"
            ));
        }
    };
    let folder = match tempfile::Builder::new().prefix("bearerd-demo-").tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            return console.fail(&format!(
                "no temporary folder can be made ({error}); TMPDIR may name another place"
            ));
        }
    };
    let reading = match daemon_settings(flags, &sandbox.sandbox, &key, folder.path()) {
        Ok(reading) => reading,
        Err(DemoError::Settings(problems)) => return tell(&problems, console),
        Err(DemoError::Keys(error)) => {
            return console.fail(&format!("the demo's key cannot be written: {error}"));
        }
    };
    let (log, _last_lines) = match telemetry::init(&reading.config.log, console.err_colour) {
        Ok(log) => log,
        Err(error) => return console.fail(&with_causes(&error)),
    };
    match bind_or_hint(reading, log, taken, console).await {
        Ok(app) => {
            console.tell(&welcome(demo, &app, &sandbox.sandbox, folder.path()));
            run_both(app, sandbox, stop).await
        }
        Err(exit) => exit,
    }
}

/// What to do where an address is taken.
fn taken(error: &BindError) -> Option<String> {
    let BindError::Listener {
        flag,
        source: listener::BindError::InUse { .. },
        ..
    } = error
    else {
        return None;
    };
    Some(format!(
        "is a demo or a daemon running already? {flag} names another address, and 127.0.0.1:0 takes any free port"
    ))
}

/// The demo's settings are its flags: where a file could be is no help.
fn tell(problems: &config::Problems, console: &mut Console<'_>) -> Exit {
    console.tell(&problems.to_string());
    Exit::BadSettings
}

/// The sandbox answers to the end: the daemon may be minting while it drains.
async fn run_both(app: App, sandbox: Bound, stop: &CancellationToken) -> Exit {
    let sandbox_stop = CancellationToken::new();
    let mut beside = JoinSet::new();
    beside.spawn(narrate(app.vend(), stop.clone()));
    let end = sandbox_stop.clone();
    beside.spawn(async move {
        let _ended_with_the_demo = sandbox.run(end).await;
    });
    let exit = live(app, stop).await;
    sandbox_stop.cancel();
    while beside.join_next().await.is_some() {}
    exit
}

/// Tells each token as it is published: a few calm lines.
async fn narrate(vend: Arc<Vend>, stop: CancellationToken) {
    let mut published = vend.watch();
    let mut last = None;
    loop {
        tokio::select! {
            changed = published.changed() => if changed.is_err() { return },
            () = stop.cancelled() => break,
        }
        // The status follows the publication within the keeper's own step.
        tokio::task::yield_now().await;
        let status = vend.status();
        let generation = status.token.as_ref().map(|token| token.generation);
        if generation != last {
            last = generation;
            say(&line(&status));
        }
    }
    let now = clock(crate::clock::wall());
    say(&format!("{now}  draining; a second Ctrl-C ends at once"));
}

fn say(line: &str) {
    let _nobody_reads_on = writeln!(io::stderr(), "{line}");
}

fn line(status: &Status) -> String {
    let (Some(token), Some(now)) = (&status.token, status.at) else {
        return String::new();
    };
    format!(
        "{}  token {}  live until {}  refresh at {}  {} of {} slots taken",
        clock(token.issued_at.shown(now)),
        token.generation,
        clock(token.expires_at.shown_expiry(now)),
        clock(token.refresh_at.shown_expiry(now)),
        status.budget.slots.len(),
        status.budget.limit,
    )
}

fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}

fn welcome(demo: &Demo, app: &App, sandbox: &Sandbox, folder: &Path) -> String {
    let (lifetime, window) = (&demo.token_lifetime, &demo.window);
    let (sandbox, folder) = (sandbox.base_url(), folder.display());
    let token = url(&app.http_addresses()[0], "/v1/token");
    let mark = "-H 'X-Bearerd-Request: true'";
    let mut text = format!(
        "\
bearerd demo: the daemon and a sandbox Truecaller in one process; nothing leaves this machine.
Tokens live {lifetime}, and at most 10 are minted in any {window}. The record is in {folder} and goes with the demo.

Get the live token, in another terminal:
  curl {mark} {token}
Spend it at the sandbox, as a service would at Truecaller:
  TOKEN=$(curl -s {mark} -H 'Accept: text/plain' {token})
  curl -X POST -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' -d '{{}}' {sandbox}/v2/clients/{ACCOUNT}/dynamic_call_record
"
    );
    if let Some(grpc) = app.grpc_addresses().first() {
        text.push_str(&format!(
            "Over gRPC, at {grpc}, ask bearerd.v1.TokenService; reflection tells the rest.\n"
        ));
    }
    if let Some(admin) = app.admin_addresses().first() {
        let look = match admin {
            Address::Tcp { .. } => format!("Watch it in a browser at http://{admin}/, or ask"),
            Address::Unix(_) => "Ask how it stands".to_owned(),
        };
        text.push_str(&format!(
            "{look}:\n  curl -s {}\n",
            url(admin, "/readyz?verbose")
        ));
    }
    text.push_str(&format!(
        "\
Take Truecaller away, and give it back with false:
  curl -X POST {mark} -d '{{\"down\": true}}' {sandbox}/_sandbox/switches
Ctrl-C ends the demo. Times are UTC.
"
    ));
    text
}

/// How curl is told what to ask; a shell must not take the `?` for a wildcard.
fn url(address: &Address, path: &str) -> String {
    let (socket, host) = match address {
        Address::Tcp { .. } => (String::new(), address.to_string()),
        Address::Unix(path) => (
            format!("--unix-socket {} ", path.display()),
            "localhost".to_owned(),
        ),
    };
    let quote = if path.contains('?') { "'" } else { "" };
    format!("{socket}{quote}http://{host}{path}{quote}")
}

enum DemoError {
    Settings(config::Problems),
    Keys(io::Error),
}

/// The daemon's settings go the way of everybody's, so that the demo shows the real thing.
fn daemon_settings(
    flags: Vec<Flag>,
    sandbox: &Sandbox,
    key: &ApiKey,
    folder: &Path,
) -> Result<Reading, DemoError> {
    let key_id = write_secret(&folder.join("key_id"), &key.key_id).map_err(DemoError::Keys)?;
    let api_key = write_secret(&folder.join("api_key"), &key.api_key).map_err(DemoError::Keys)?;
    let text = |path: &Path| path.display().to_string();
    let own = [
        ("upstream.account", ACCOUNT.to_owned()),
        ("upstream.base_url", sandbox.base_url()),
        ("upstream.keys.0.key_id_file", text(&key_id)),
        ("upstream.keys.0.api_key_file", text(&api_key)),
        ("record.file.folder", text(&folder.join("state"))),
        // The demo tells its own lines.
        ("log.level", "warn".to_owned()),
    ];
    let own = own
        .into_iter()
        .map(|(path, value)| Flag::new("demo", path, value));
    let sources = Sources::flags_only(own.chain(flags).collect());
    config::read(&sources).map_err(DemoError::Settings)
}

fn write_secret(path: &Path, secret: &str) -> io::Result<PathBuf> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(secret.as_bytes())?;
    Ok(path.to_owned())
}

fn sandbox_settings(config: &config::Sandbox) -> Settings {
    let mut settings = Settings::new(ACCOUNT);
    settings.listen = config.listen;
    settings.token_lifetime = config.token_lifetime;
    settings.window = config.window;
    settings
}
