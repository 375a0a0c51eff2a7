//! Carries out what the keeper decides. It decides nothing itself.
//!
//! One task owns the keeper and everything that it has under way. It wakes at the keeper's next wish, and at least every tick, so
//! that a suspend or a step of the wall clock is noticed. It ends only when it is told to drain.

mod keys;

use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::log::{Event, KeeperLog};
use super::metrics::Metrics;
use super::{Input, Keeper, Output, Settings};
use crate::clock::Clock;
use crate::issuer::{Answer, Issuer, KeyFiles, Keys, Look};
use crate::record::{Loaded, Register, RegisterError, Swapped};
use crate::vend::{Command, Live, RefreshOutcome, ReportOutcome, Vend};
use keys::KeyRing;

/// The longest sleep: tokio's timers stand still while the machine is suspended, and do not see the wall clock step.
const TICK: Duration = Duration::from_secs(1);

/// How long a register may take. A disk that hangs is told as a register that does not serve.
const REGISTER_PATIENCE: Duration = Duration::from_secs(5);

/// What the keeper works with.
pub struct Parts {
    /// What it goes by.
    pub settings: Settings,
    /// Where the record lives.
    pub register: Arc<dyn Register>,
    /// Who mints.
    pub issuer: Arc<dyn Issuer>,
    /// The record as it was loaded at the start.
    pub loaded: Option<Loaded>,
    /// The keys as they were read at the start.
    pub keys: Keys,
    /// Where they are read again.
    pub key_files: KeyFiles,
    /// The address that they are sent to, which is a part of their fingerprint.
    pub mint_url: String,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where tokens and status are put out.
    pub vend: Arc<Vend>,
    /// What transports ask.
    pub commands: mpsc::Receiver<Command>,
}

/// Who waits for the answer to a command.
enum Asker {
    Report(oneshot::Sender<ReportOutcome>),
    Refresh(oneshot::Sender<RefreshOutcome>),
}

/// The task that owns the keeper.
pub struct Driver {
    parts: Parts,
    keeper: Keeper,
    metrics: Metrics,
    under_way: JoinSet<Input>,
    keys: KeyRing,
    reading: JoinSet<Option<Look>>,
    log: KeeperLog,
    retired: bool,
}

impl Driver {
    /// Prepares the task; [`Driver::run`] begins it.
    pub fn new(parts: Parts, registry: &Registry) -> Self {
        let keeper = Keeper::new(parts.settings.clone(), fastrand::u64(..));
        let metrics = Metrics::new(registry, parts.register.name());
        let keys = KeyRing::new(parts.key_files.clone(), parts.keys.clone());
        Self {
            parts,
            keeper,
            keys,
            metrics,
            under_way: JoinSet::new(),
            reading: JoinSet::new(),
            log: KeeperLog::default(),
            retired: false,
        }
    }

    /// Keeps the token until `drain`, and then until nothing is under way; begins no attempt once `retire` is cancelled. Dropping
    /// it leaves the record as true as a crash does.
    pub async fn run(mut self, retire: CancellationToken, drain: CancellationToken) {
        self.step(self.keys_input(), None);
        let register = Arc::clone(&self.parts.register);
        let mut changed = register.changed();
        let mut ending = false;
        while !(ending && self.keeper.at_rest()) {
            let now = self.parts.clock.now();
            let wake = self
                .keeper
                .next_wake(now)
                .map_or(TICK, |at| at.saturating_sub(now.boot).min(TICK));
            let (input, asker) = tokio::select! {
                Some(done) = self.under_way.join_next() => (self.ended(done), None),
                Some(command) = self.parts.commands.recv() => asked(command),
                () = &mut changed => {
                    changed = register.changed();
                    (Input::Changed, None)
                }
                () = sleep(wake) => (Input::Tick, None),
                Some(read) = self.reading.join_next() => (self.keys_read(read), None),
                () = sleep_until(self.keys.next_look()), if self.reading.is_empty() => {
                    self.read_keys();
                    continue;
                }
                () = drain.cancelled(), if !ending => {
                    ending = true;
                    continue;
                }
                () = retire.cancelled(), if !self.retired => {
                    self.retired = true;
                    self.keeper.retire();
                    (Input::Tick, None)
                }
            };
            self.step(input, asker);
        }
        let now = self.parts.clock.now();
        self.log.finish(now, &self.keeper.outlook(now));
    }

    /// One step of the keeper, and everything that follows from it.
    fn step(&mut self, input: Input, asker: Option<Asker>) {
        let now = self.parts.clock.now();
        let mut outputs = Vec::new();
        self.keeper.step(now, input, &mut outputs);
        let mut asker = asker;
        for output in outputs {
            match output {
                Output::Load => self.load(),
                Output::Swap { seen, next } => {
                    let register = Arc::clone(&self.parts.register);
                    self.under_way.spawn(async move {
                        let swap = timeout(REGISTER_PATIENCE, register.swap(seen, *next)).await;
                        Input::Swapped(
                            swap.unwrap_or_else(|_| Swapped::Unknown(no_answer("write"))),
                        )
                    });
                }
                Output::Mint { key, send_by } => self.mint(key, send_by),
                Output::Publish { token, suspect } => {
                    self.parts.vend.publish(Live::new(token, suspect));
                }
                Output::Reported(outcome) => {
                    if let Some(Asker::Report(reply)) = asker.take() {
                        let _hung_up = reply.send(outcome);
                    }
                }
                Output::Refreshed(outcome) => {
                    if let Some(Asker::Refresh(reply)) = asker.take() {
                        let _hung_up = reply.send(outcome);
                    }
                }
                Output::Attempted {
                    class,
                    outcome,
                    duration,
                } => self.metrics.attempted(outcome, class, duration, now),
                Output::Note(note) => self.log.add(Event::Note(note)),
            }
        }
        self.log.write(now, &self.keeper.outlook(now));
        let status = self.keeper.status(now, self.parts.register.name());
        self.metrics.show(&status);
        self.parts.vend.publish_status(status);
    }

    fn load(&mut self) {
        if let Some(loaded) = self.parts.loaded.take() {
            self.under_way.spawn(async { Input::Loaded(Ok(loaded)) });
            return;
        }
        let register = Arc::clone(&self.parts.register);
        self.under_way.spawn(async move {
            let load = timeout(REGISTER_PATIENCE, register.load()).await;
            Input::Loaded(load.unwrap_or_else(|_| Err(no_answer("read"))))
        });
    }

    /// Asks with this key, unless the files hold other keys by now: then nothing is sent, and the slot comes back.
    fn mint(&mut self, key: u32, send_by: Duration) {
        let issuer = Arc::clone(&self.parts.issuer);
        let key = self.keys.at_hand().pick(key).clone();
        let left = send_by.saturating_sub(self.parts.clock.now().boot);
        let still_so = self.keys.still_so(left / 2);
        self.under_way.spawn(async move {
            Input::Minted(match still_so.await {
                true => issuer.mint(&key, send_by).await,
                false => Answer::NotSent {
                    detail: "the key files have just changed; they are read again".into(),
                },
            })
        });
    }

    /// What a finished task came to. A panic goes on here, and brings the process down: what it was doing is unknown.
    fn ended(&mut self, done: Result<Input, tokio::task::JoinError>) -> Input {
        let input = done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        match &input {
            Input::Loaded(Ok(_)) => self.metrics.operated("load", "done"),
            Input::Loaded(Err(_)) => self.metrics.operated("load", "unavailable"),
            Input::Swapped(outcome) => self.metrics.operated("swap", swapped_name(outcome)),
            // Refused keys may have been replaced, and what withheld a request is to be known.
            Input::Minted(Answer::Refused { .. } | Answer::NotSent { .. }) => self.read_keys(),
            _ => {}
        }
        input
    }

    fn keys_input(&self) -> Input {
        let keys = self.keys.at_hand();
        Input::Keys {
            fingerprint: keys.fingerprint_at(&self.parts.mint_url),
            count: keys.count(),
        }
    }

    /// Reads the key files again, one reading at a time.
    fn read_keys(&mut self) {
        if self.reading.is_empty() {
            self.reading.spawn(self.keys.look());
        }
    }

    fn keys_read(&mut self, read: Result<Option<Look>, JoinError>) -> Input {
        let look = read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        let changed = self.keys.seen(look, Instant::now());
        self.metrics.keys_seen(self.keys.absent());
        let news = self.keys.take_news();
        news.into_iter().for_each(|event| self.log.add(event));
        match changed {
            true => self.keys_input(),
            false => Input::Tick,
        }
    }
}

fn no_answer(doing: &str) -> RegisterError {
    RegisterError::Io {
        doing: format!("{doing} the record"),
        why: format!("no answer within {REGISTER_PATIENCE:?}"),
    }
}

fn asked(command: Command) -> (Input, Option<Asker>) {
    match command {
        Command::Report { generation, reply } => {
            (Input::Report(generation), Some(Asker::Report(reply)))
        }
        Command::Refresh { reply } => (Input::Refresh, Some(Asker::Refresh(reply))),
    }
}

fn swapped_name(outcome: &Swapped) -> &'static str {
    match outcome {
        Swapped::Done(_) => "done",
        Swapped::Conflict => "conflict",
        Swapped::Unavailable(_) => "unavailable",
        Swapped::Unknown(_) => "unknown",
    }
}
