//! `sandbox`: a Truecaller that fits in a process, for users' own tests.

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::for_daemon::ForDaemon;
use super::serve::{in_runtime, until_signalled};
use super::{Console, Exit, with_causes};
use crate::config::{self, Sources};
use crate::issuer::{KeyError, KeyFiles};
use crate::sandbox::{self, ApiKey, OverBudget, Sandbox, Settings};

pub(super) fn run(sources: &Sources, folder: Option<&Path>, console: &mut Console<'_>) -> Exit {
    let config = match config::read_sandbox(sources) {
        Ok(config) => config,
        Err(problems) => return console.tell_problems(&problems, sources),
    };
    match settings(&config) {
        Ok(settings) => {
            let stop = CancellationToken::new();
            let wanted = Wanted {
                key_files: config.key_files,
                folder,
            };
            in_runtime(until_signalled(
                &stop,
                serve(settings, &wanted, &stop, console),
            ))
        }
        Err(why) => {
            console.tell(&format!("the sandbox's key: {why}"));
            Exit::BadSettings
        }
    }
}

/// What is written beside the sandbox itself.
struct Wanted<'a> {
    /// Where its key came from; `None` for a made-up one.
    key_files: Option<(PathBuf, PathBuf)>,
    /// Where settings for a daemon go.
    folder: Option<&'a Path>,
}

async fn serve(
    settings: Settings,
    wanted: &Wanted<'_>,
    stop: &CancellationToken,
    console: &mut Console<'_>,
) -> Exit {
    let mut told = told(&settings, wanted.key_files.is_none());
    let for_daemon = wanted.folder.map(|folder| ForDaemon {
        folder,
        settings: settings.clone(),
        key_files: wanted.key_files.clone(),
    });
    let bound = match Sandbox::bind(settings).await {
        Ok(bound) => bound,
        Err(error @ sandbox::Error::Bind { .. }) => {
            let why = with_causes(&error);
            return console.fail(&format!("sandbox.listen (--listen): {why}"));
        }
        Err(error) => return console.fail_with(&error),
    };
    if let Some(for_daemon) = for_daemon {
        match for_daemon.write(&bound.sandbox.base_url()) {
            Ok(file) => told.push_str(&format!(", \"settings\": {:?}", file.display().to_string())),
            Err(why) => return console.fail(&why),
        }
    }
    console.print(&format!(
        "{{\"base_url\": \"{}\", {told}}}\n",
        bound.sandbox.base_url()
    ));
    match bound.run(stop.clone()).await {
        Ok(()) => Exit::Done,
        Err(error) => console.fail_with(&error),
    }
}

/// What a client needs to know, as members of a JSON object. A made-up key opens nothing but this sandbox, so it may be shown; one
/// that came from files is not.
fn told(settings: &Settings, made_up: bool) -> String {
    let account = format!("\"account\": {:?}", settings.account);
    match settings.keys.first().filter(|_| made_up) {
        Some(key) => format!(
            "{account}, \"key_id\": {:?}, \"api_key\": {:?}",
            key.key_id, key.api_key
        ),
        None => account,
    }
}

fn settings(config: &config::Sandbox) -> Result<Settings, KeyError> {
    let mut settings = Settings::new(config.account.as_deref().unwrap_or("sandbox"));
    settings.listen = config.listen;
    settings.token_lifetime = config.token_lifetime;
    settings.window = config.window;
    settings.limit = config.limit.get();
    settings.over_budget = match config.over_budget_status {
        400 => OverBudget::BadRequest,
        500 => OverBudget::InternalServerError,
        _ => OverBudget::TooManyRequests,
    };
    settings.failures_count = config.failures_count;
    settings.revokes_previous = config.revokes_previous;
    if let Some(pair) = &config.key_files {
        let keys = KeyFiles {
            pairs: vec![pair.clone()],
        }
        .read()?;
        let key = keys.pick(0);
        settings.keys = vec![ApiKey {
            key_id: key.key_id.expose().to_owned(),
            api_key: key.api_key.expose().to_owned(),
        }];
    }
    Ok(settings)
}
