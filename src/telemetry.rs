//! What bearerd says about itself on stderr, in which form, and how much of it.
//!
//! The filter can be changed while the process runs. A bare level is bearerd's own; what bearerd is built on stays at `warn`
//! unless it is asked for by name.

mod file;
mod queue;

use std::fmt;
use std::io::{Write, stderr};
use std::panic::{self, PanicHookInfo};
use std::str::FromStr;
use std::sync::Arc;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, reload};

pub use file::{LineFile, could_open};
pub use queue::LastLines;
use queue::Queue;

/// How the log looks and how much of it there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// How each line looks.
    pub format: Format,
    /// What is logged.
    pub filter: Filter,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One compact line, for people.
    #[default]
    Text,
    /// One JSON object, for machines.
    Json,
}

impl Format {
    /// Every format's name, in the order in which they are shown.
    pub const NAMES: &[&str] = &["text", "json"];

    /// The format with this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// What is logged: a level for bearerd, and levels for targets by name, as in `info,hyper=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    own: LevelFilter,
    targets: Vec<(String, LevelFilter)>,
}

/// Why a text is no filter. It does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "part {part} is neither a level (off, error, warn, info, debug, trace) nor target=level, as in info,hyper=debug"
)]
pub struct NotAFilter {
    /// Which of the parts between commas, counted from one.
    pub part: usize,
}

impl Filter {
    fn targets(&self) -> Targets {
        // Off or errors only is meant for all; more than warnings only for bearerd.
        Targets::new()
            .with_default(self.own.min(LevelFilter::WARN))
            .with_target("bearerd", self.own)
            .with_target("audit", self.own)
            .with_targets(self.targets.iter().cloned())
    }

    /// Whether an event of this target and level is logged.
    pub fn enables(&self, target: &str, level: Level) -> bool {
        self.targets().would_enable(target, &level)
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            own: LevelFilter::INFO,
            targets: Vec::new(),
        }
    }
}

impl FromStr for Filter {
    type Err = NotAFilter;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut filter = Self::default();
        for (index, part) in text.split(',').map(str::trim).enumerate() {
            let error = NotAFilter { part: index + 1 };
            match part.split_once('=') {
                None => filter.own = level(part).ok_or(error)?,
                Some((target, wanted)) => {
                    let target = target.trim();
                    let named = !target.is_empty()
                        && target
                            .bytes()
                            .all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte));
                    let wanted = level(wanted.trim()).filter(|_| named).ok_or(error)?;
                    filter.targets.push((target.to_owned(), wanted));
                }
            }
        }
        Ok(filter)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.own)?;
        self.targets
            .iter()
            .try_for_each(|(target, level)| write!(f, ",{target}={level}"))
    }
}

/// `LevelFilter` reads numbers and the empty text too, which nobody means.
fn level(text: &str) -> Option<LevelFilter> {
    let named = ["off", "error", "warn", "info", "debug", "trace"];
    let known = named.iter().any(|name| name.eq_ignore_ascii_case(text));
    known.then(|| text.parse().ok()).flatten()
}

/// Changes what is logged while the process runs. Clones change the same log.
#[derive(Clone)]
pub struct FilterHandle {
    log: reload::Handle<Targets, Registry>,
    settings: Arc<Filter>,
}

impl FilterHandle {
    /// Puts another filter in force. Does nothing once the log is gone.
    pub fn set(&self, filter: &Filter) {
        let _gone = self.log.reload(filter.targets());
    }

    /// The filter that the log began with.
    pub fn of_settings(&self) -> &Filter {
        &self.settings
    }
}

/// A line as a JSON log has them, for what is said beside the log.
pub fn json_line(level: Level, target: &str, message: &str) -> serde_json::Value {
    serde_json::json!({
        "timestamp": format!("{:.6}", crate::clock::wall()),
        "level": level.as_str(),
        "target": target,
        "message": message,
    })
}

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is no thread to write it.
    #[error("no thread can be started for the log")]
    Thread(#[from] std::io::Error),
    /// It was started before.
    #[error("there is a log already")]
    Twice(#[from] TryInitError),
}

/// Starts the log of this process, on stderr. Colour is for terminals; the caller knows whether stderr is one and whether it is
/// wanted. A log that nobody reads makes nobody wait. Keep the last lines until the process ends.
///
/// # Errors
/// If a log was started before, or no thread can be.
pub fn init(settings: &Settings, colour: bool) -> Result<(FilterHandle, LastLines), InitError> {
    let format = settings.format;
    let missed = move |lost| queue::missed(lost, format);
    let (queue, last) = Queue::start("log", queue::LINES, stderr(), missed)?;
    let (subscriber, handle) = subscriber(settings, colour, queue);
    subscriber.try_init()?;
    if settings.format == Format::Json {
        panic::set_hook(Box::new(tell_panic));
    }
    Ok((handle, last))
}

/// Says so past the log and its filter: a panic may be the last thing that the process does.
fn tell_panic(panicked: &PanicHookInfo<'_>) {
    let payload = panicked.payload();
    let owned = payload.downcast_ref::<String>().map(String::as_str);
    let message = owned.or_else(|| payload.downcast_ref::<&str>().copied());
    let message = message.unwrap_or("a panic");
    let mut line = json_line(Level::ERROR, module_path!(), message);
    line["place"] = panicked.location().map(ToString::to_string).into();
    let _nobody_reads_on = writeln!(stderr(), "{line}");
}

/// The log that [`init`] starts, for one thread or one test.
pub fn subscriber<W>(
    settings: &Settings,
    colour: bool,
    writer: W,
) -> (impl Subscriber + Send + Sync + 'static, FilterHandle)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(settings.filter.targets());
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match settings.format {
        Format::Text => lines.compact().with_ansi(colour).boxed(),
        // A span of what bearerd is built on would be an object within the object.
        Format::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_ansi(false)
            .boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    let handle = FilterHandle {
        log: handle,
        settings: Arc::new(settings.filter.clone()),
    };
    (subscriber, handle)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(settings: &Settings, colour: bool, say: impl FnOnce(&FilterHandle)) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let (subscriber, handle) = subscriber(settings, colour, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || say(&handle));
        kept.text()
    }

    #[test]
    fn a_bare_level_is_bearerds_own() {
        let filter: Filter = "debug".parse().unwrap();
        assert!(filter.enables("bearerd::keeper", Level::DEBUG));
        assert!(!filter.enables("hyper::proto", Level::INFO));
        assert!(filter.enables("hyper::proto", Level::WARN));
        let quiet: Filter = "error".parse().unwrap();
        assert!(!quiet.enables("rustls", Level::WARN));
        let asked: Filter = "info, hyper=debug".parse().unwrap();
        assert!(asked.enables("hyper::proto", Level::DEBUG));
        assert!(!asked.enables("bearerd", Level::DEBUG));
        assert_eq!(asked.to_string(), "info,hyper=debug");
        assert!(Filter::default().enables("bearerd", Level::INFO));
    }

    #[test]
    fn a_word_that_is_no_level_is_not_taken_for_a_target() {
        for (text, part) in [
            ("inof", 1),
            ("", 1),
            ("3", 1),
            ("info,=debug", 2),
            ("info,hyper=loud", 2),
        ] {
            assert_eq!(text.parse::<Filter>(), Err(NotAFilter { part }), "{text}");
        }
    }

    #[test]
    fn the_filter_changes_while_the_log_runs() {
        let text = logged(&Settings::default(), false, |handle| {
            tracing::debug!(target: "bearerd::test", "unheard");
            handle.set(&"debug".parse().unwrap());
            tracing::debug!(target: "bearerd::test", answer = 42, "heard");
            tracing::info!(target: "hyper", "unheard");
        });
        assert!(
            text.contains("heard") && text.contains("answer=42"),
            "{text}"
        );
        assert!(
            !text.contains("unheard") && !text.contains('\x1b'),
            "{text}"
        );
    }

    /// The name of the test below, and the variable that makes it the one that panics.
    const PANICKING: &str = "telemetry::tests::a_panic_is_a_line_of_a_json_log_too";

    #[test]
    fn a_panic_is_a_line_of_a_json_log_too() {
        if std::env::var_os(PANICKING).is_some() {
            let settings = Settings {
                format: Format::Json,
                filter: "off".parse().unwrap(),
            };
            let _log = init(&settings, false).unwrap();
            panic!("a defect\nin two lines");
        }
        // A hook is the whole process's, so it is another process's.
        let run = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", PANICKING, "--nocapture"])
            .env(PANICKING, "1")
            .output()
            .unwrap();
        assert!(!run.status.success());
        let said = String::from_utf8(run.stderr).unwrap();
        let line = said.lines().find(|line| line.contains("a defect"));
        let line: serde_json::Value = serde_json::from_str(line.unwrap()).unwrap();
        assert_eq!(
            (&line["level"], &line["message"]),
            (&"ERROR".into(), &"a defect\nin two lines".into())
        );
        let place = line["place"].as_str().unwrap();
        assert!(place.contains("telemetry.rs:"), "{place}");
        assert!(!said.contains("panicked at"), "{said}");
    }

    #[test]
    fn json_lines_are_flat_objects_and_colour_is_only_for_text() {
        let settings = Settings {
            format: Format::Json,
            ..Settings::default()
        };
        let text = logged(&settings, true, |_| {
            let _within = tracing::warn_span!(target: "h2", "connection", peer = 7).entered();
            tracing::info!(target: "bearerd::test", answer = 42, "heard");
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        let flat = |(_, value): (_, &serde_json::Value)| !value.is_object() && !value.is_array();
        assert!(line.as_object().unwrap().iter().all(flat), "{text}");
        assert_eq!(
            (&line["message"], &line["answer"]),
            (&"heard".into(), &42.into())
        );

        let coloured = logged(&Settings::default(), true, |_| {
            tracing::info!(target: "bearerd::test", "heard");
        });
        assert!(coloured.contains('\x1b'), "{coloured}");
    }
}
