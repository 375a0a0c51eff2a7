//! `sandbox`: a Truecaller that fits in a process, for users' own tests.

use tokio_util::sync::CancellationToken;

use super::serve::in_runtime;
use super::{Console, Exit};
use crate::config::{self, Sources};
use crate::issuer::{KeyError, KeyFiles};
use crate::lifecycle::Signals;
use crate::sandbox::{ApiKey, OverBudget, Sandbox, Settings};

pub(super) fn run(sources: &Sources, console: &mut Console<'_>) -> Exit {
    let config = match config::read_sandbox(sources) {
        Ok(config) => config,
        Err(problems) => return console.tell_problems(&problems),
    };
    match settings(&config) {
        Ok(settings) => in_runtime(serve(settings, config.key_files.is_none(), console)),
        Err(why) => {
            console.tell(&format!("the sandbox's key: {why}"));
            Exit::BadSettings
        }
    }
}

async fn serve(settings: Settings, made_up: bool, console: &mut Console<'_>) -> Exit {
    let told = told(&settings, made_up);
    let bound = match Sandbox::bind(settings).await {
        Ok(bound) => bound,
        Err(error) => return console.fail(&error.to_string()),
    };
    console.print(&format!(
        "{{\"base_url\": \"{}\", {told}}}\n",
        bound.sandbox.base_url()
    ));
    let signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => return console.fail(&format!("the signals cannot be taken over: {error}")),
    };
    let stop = CancellationToken::new();
    tokio::select! {
        ended = bound.run(stop.clone()) => match ended {
            Ok(()) => Exit::Done,
            Err(error) => console.fail(&error.to_string()),
        },
        () = signals.watch(&stop) => Exit::Failed,
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
