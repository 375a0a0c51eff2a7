//! `serve`: the daemon, from its settings to its last answer.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Console, Exit};
use crate::app::App;
use crate::config::{self, Config, Sources};
use crate::lifecycle::{self, Signals};
use crate::telemetry;

/// What a write to the disk that is under way may still take once everything else has ended.
const LAST_WRITE: Duration = Duration::from_secs(1);

pub(super) fn run(sources: &Sources, console: &mut Console<'_>) -> Exit {
    if let Err(error) = lifecycle::hide_memory() {
        return console.fail(&format!(
            "the process's memory cannot be kept from core files: {error}"
        ));
    }
    let config = match config::read(sources) {
        Ok(reading) => reading.config,
        Err(problems) => return console.tell_problems(&problems),
    };
    if let Err(error) = telemetry::init(&config.log, console.err_colour, std::io::stderr) {
        console.tell(&format!("the log cannot be started: {error}"));
        return Exit::Failed;
    }
    for warning in &config.warnings {
        warn!("{warning}");
    }
    in_runtime(serve(config, console))
}

async fn serve(config: Config, console: &mut Console<'_>) -> Exit {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        account = config.account,
        "starting"
    );
    match bind(config, console).await {
        Ok(app) => live(app, CancellationToken::new()).await,
        Err(exit) => exit,
    }
}

/// Makes the daemon, or says in one line why there is none.
pub(super) async fn bind(config: Config, console: &mut Console<'_>) -> Result<App, Exit> {
    App::bind(config).await.map_err(|error| {
        console.tell(&error.to_string());
        if error.is_about_settings() {
            Exit::BadSettings
        } else {
            Exit::Failed
        }
    })
}

/// Serves until a signal, or until something ends that should not. A second signal does not wait for the drain.
pub(super) async fn live(app: App, stop: CancellationToken) -> Exit {
    let signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => {
            error!(%error, "the signals cannot be taken over");
            return Exit::Failed;
        }
    };
    tokio::select! {
        ended = app.run(stop.clone()) => match ended {
            Ok(()) => {
                info!("drained");
                Exit::Done
            }
            // It was told when it happened.
            Err(_) => Exit::Failed,
        },
        () = signals.watch(&stop) => {
            warn!("a second signal: ending at once");
            Exit::Failed
        }
    }
}

/// Runs on one thread: serving needs no more, and one thread serves cheapest.
pub(super) fn in_runtime(work: impl Future<Output = Exit>) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime of one thread needs nothing that a process lacks");
    let exit = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_WRITE);
    exit
}
