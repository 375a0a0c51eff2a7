//! What callers reach, in a process without a socket: the real room, a clock that follows the paused time of the runtime, and a
//! keeper that always says the same.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bearerd::api::Metrics;
use bearerd::api::http::{Api, Settings};
use bearerd::caller::{self, Callers};
use bearerd::clock::{BootId, Clock, Stamp};
use bearerd::token::{Generation, Secret, Token};
use bearerd::vend::{Command, Live, ReportOutcome, Status, Vend};
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The tokens that are vended, by generation.
pub(super) const SECRETS: [&str; 2] = [
    "token-5-93b14f6e8a2d5e0c2a7d",
    "token-6-8a2d5e0c2a7d93b14f6e",
];

/// A host that the settings name.
pub(super) const HOST: &str = "gateway";

/// The beginning of all stories.
pub(super) fn start() -> Stamp {
    Stamp {
        wall: "2027-01-15T08:00:00Z".parse().unwrap(),
        boot: Duration::from_secs(100_000),
    }
}

pub(super) fn live(generation: u64, expires_in: Duration, suspect: bool) -> Live {
    let token = Token {
        generation: Generation(generation),
        secret: Secret::new(SECRETS[usize::try_from(generation - 5).unwrap()].into()),
        issued_at: start().minus(Duration::from_secs(60)),
        refresh_at: start(),
        expires_at: start().plus(expires_in),
    };
    Live::new(token, suspect)
}

/// A clock that goes as the runtime's does, which is paused and leaps to the next thing that somebody waits for.
pub(super) struct LeapingClock(Instant);

impl Clock for LeapingClock {
    fn now(&self) -> Stamp {
        start().plus(self.0.elapsed())
    }

    fn boot_id(&self) -> BootId {
        BootId::new("boot")
    }
}

pub(super) struct Room {
    pub(super) vend: Arc<Vend>,
    pub(super) api: Api,
    pub(super) clock: Arc<LeapingClock>,
    pub(super) commands: mpsc::Receiver<Command>,
}

impl Room {
    /// To be opened inside the runtime.
    pub(super) fn open() -> Self {
        static COUNTED: OnceLock<(Metrics, Arc<Callers>)> = OnceLock::new();
        let (metrics, callers) = COUNTED.get_or_init(|| {
            let registry = Registry::new();
            let settings = caller::Settings {
                audit: caller::audit::Settings::Off,
                ..caller::Settings::default()
            };
            let clock = Arc::new(LeapingClock(Instant::now()));
            let callers = Callers::new(&settings, clock, &registry).unwrap();
            (Metrics::register(&registry), callers)
        });
        let (vend, commands) = Vend::new(Status::default());
        let clock = Arc::new(LeapingClock(Instant::now()));
        let settings = Settings {
            hosts: vec![HOST.into()],
        };
        let api = Api::new(
            &settings,
            Arc::clone(&vend),
            clock.clone(),
            metrics,
            callers,
        );
        Self {
            vend,
            api,
            clock,
            commands,
        }
    }
}

/// Answers every report the same way and notes what was reported; never ends.
pub(super) async fn keep(
    mut commands: mpsc::Receiver<Command>,
    outcome: ReportOutcome,
    mut heard: impl FnMut(Generation),
) {
    while let Some(command) = commands.recv().await {
        if let Command::Report { generation, reply } = command {
            heard(generation);
            let _ = reply.send(outcome);
        }
    }
    std::future::pending::<()>().await;
}

/// Runs a story to its end, in paused time.
pub(super) fn run<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.unwrap().block_on(story)
}
