//! `sandbox`: a Truecaller that fits in a process, for users' own tests.

use tokio_util::sync::CancellationToken;

use super::serve::{in_runtime, until_signalled};
use super::{Console, Exit};
use crate::config::{self, Sources};
use crate::issuer::{KeyError, KeyFiles};
use crate::sandbox::{ApiKey, OverBudget, Sandbox, Settings};

pub(super) fn run(sources: &Sources, console: &mut Console<'_>) -> Exit {
    let config = match config::read_sandbox(sources) {
        Ok(config) => config,
        Err(problems) => return console.tell_problems(&problems, sources),
    };
    match settings(&config) {
        Ok(settings) => {
            let (stop, made_up) = (CancellationToken::new(), config.key_files.is_none());
            in_runtime(until_signalled(
                &stop,
                serve(settings, made_up, &stop, console),
            ))
        }
        Err(why) => {
            console.tell(&format!("the sandbox's key: {why}"));
            Exit::BadSettings
        }
    }
}

async fn serve(
    settings: Settings,
    made_up: bool,
    stop: &CancellationToken,
    console: &mut Console<'_>,
) -> Exit {
    let told = told(&settings, made_up);
    let bound = match Sandbox::bind(settings).await {
        Ok(bound) => bound,
        Err(error) => return console.fail_with(&error),
    };
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
