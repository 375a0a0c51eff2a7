//! `serve`: the daemon, from its settings to its last answer.

use std::pin::Pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{Level, info, warn};

use super::{Console, Exit, NO_SETTINGS, with_causes};
use crate::app::{App, BindError};
use crate::config::{self, Problems, Reading, Sources};
use crate::lifecycle::Signals;
use crate::lifecycle::notify::{Manager, Wishes};
use crate::telemetry::{self, FilterHandle, Format, json_line};

/// What a write to the disk that is under way may still take once everything else has ended.
const LAST_WRITE: Duration = Duration::from_secs(1);

pub(super) fn run(sources: &Sources, wishes: Option<&Wishes>, console: &mut Console<'_>) -> Exit {
    let reading = match config::read(sources) {
        Ok(reading) => reading,
        Err(problems) => return refuse(&problems, sources, console),
    };
    let format = reading.config.log.format;
    let (log, _last_lines) = match telemetry::init(&reading.config.log, console.err_colour) {
        Ok(log) => log,
        Err(error) => {
            tell_error(&with_causes(&error), format, console);
            return Exit::Failed;
        }
    };
    for warning in &reading.config.warnings {
        warn!("{warning}");
    }
    let manager = wishes.and_then(|wishes| match Manager::new(wishes) {
        Ok(manager) => Some(manager),
        Err(error) => {
            warn!(%error, "the service manager cannot be told anything");
            None
        }
    });
    let stop = CancellationToken::new();
    in_runtime(until_signalled(
        &stop,
        serve(reading, log, manager, &stop, console),
    ))
}

/// All that is wrong with the settings, in the form that they give the log: a line or an object for
/// each problem.
fn refuse(problems: &Problems, sources: &Sources, console: &mut Console<'_>) -> Exit {
    if config::log_format(sources) == Format::Text {
        return console.tell_problems(problems, sources);
    }
    for problem in &problems.0 {
        let mut line = json_line(Level::ERROR, module_path!(), &problem.to_string());
        line["place"] = problem.place.as_str().into();
        console.tell(&line.to_string());
    }
    if sources.is_bare() {
        let hint = json_line(Level::INFO, module_path!(), NO_SETTINGS);
        console.tell(&hint.to_string());
    }
    Exit::BadSettings
}

/// One line about why nothing starts, like those of the log.
fn tell_error(why: &str, format: Format, console: &mut Console<'_>) {
    console.tell(&match format {
        Format::Text => why.to_owned(),
        Format::Json => json_line(Level::ERROR, module_path!(), why).to_string(),
    });
}

async fn serve(
    reading: Reading,
    log: FilterHandle,
    manager: Option<Manager>,
    stop: &CancellationToken,
    console: &mut Console<'_>,
) -> Exit {
    let account = reading.config.account.clone();
    match bind(reading, log, console).await {
        Ok(app) => {
            info!(version = env!("CARGO_PKG_VERSION"), account, "starting");
            live(app.under(manager), stop).await
        }
        Err(exit) => exit,
    }
}

/// Makes the daemon, or says in one line, like those of the log, why there is none.
pub(super) async fn bind(
    reading: Reading,
    log: FilterHandle,
    console: &mut Console<'_>,
) -> Result<App, Exit> {
    bind_or_hint(reading, log, |_| None, console).await
}

/// The same, with what else to say about an error.
pub(super) async fn bind_or_hint(
    reading: Reading,
    log: FilterHandle,
    hint: impl Fn(&BindError) -> Option<String>,
    console: &mut Console<'_>,
) -> Result<App, Exit> {
    let settings = reading.effective.to_json();
    let format = reading.config.log.format;
    let app = App::bind(reading.config).await;
    app.map(|app| app.for_operators(settings, log))
        .map_err(|error| {
            let hint = hint(&error).map_or_else(String::new, |hint| format!("; {hint}"));
            let why = format!("{}{hint}", with_causes(&error));
            tell_error(&why, format, console);
            if error.is_about_settings() {
                Exit::BadSettings
            } else {
                Exit::Failed
            }
        })
}

/// Serves until `stop`, or until something ends that should not. Told to stop before it began, it begins nothing.
pub(super) async fn live(app: App, stop: &CancellationToken) -> Exit {
    if stop.is_cancelled() {
        return Exit::Done;
    }
    match app.run(stop.clone()).await {
        Ok(()) => {
            info!("drained");
            Exit::Done
        }
        // It was told when it happened.
        Err(_) => Exit::Failed,
    }
}

/// Does the work, and cancels `stop` at the first signal, however early it comes. A second signal does not wait for the work.
pub(super) async fn until_signalled(
    stop: &CancellationToken,
    work: impl Future<Output = Exit>,
) -> Exit {
    let signals = Signals::take().expect("a process may take over its own signals");
    tokio::select! {
        exit = work => exit,
        () = signals.watch(stop) => {
            warn!("a second signal: ending at once");
            Exit::Failed
        }
    }
}

/// Runs on one thread: serving needs no more, and one thread serves cheapest.
pub(super) fn in_runtime(work: impl Future<Output = Exit>) -> Exit {
    drive(Box::pin(work))
}

/// One copy of the runtime's loop serves every command that is long-lived.
fn drive(work: Pin<Box<dyn Future<Output = Exit> + '_>>) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime of one thread needs nothing that a process lacks");
    let exit = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_WRITE);
    exit
}
