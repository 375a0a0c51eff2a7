//! The driver under tokio's paused time, with peers in memory.

use super::world::{MINUTE, SECOND, the_real_account};
use crate::clock::{BootId, Clock, Stamp};
use crate::issuer::{Answer, Issuer, Key, KeyFiles, Minted, Pending};
use crate::keeper::Settings;
use crate::keeper::driver::{Driver, Parts};
use crate::record::memory::MemoryRegister;
use crate::record::{Absent, Loaded, Record, Register, RegisterError, Swapped, Version};
use crate::token::{Generation, Secret};
use crate::vend::status::Status;
use crate::vend::{RefreshOutcome, ReportOutcome, Vend};
use jiff::{SignedDuration, Timestamp};
use std::cell::Cell;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Answers with a new token each time; it may be held back, and it may panic.
#[derive(Default)]
struct Scripted {
    asked: AtomicU32,
    keys: Mutex<Vec<String>>,
    held_back: Option<Notify>,
    panics: bool,
}

impl Issuer for Scripted {
    fn mint<'a>(&'a self, key: &'a Key, _send_by: std::time::Duration) -> Pending<'a, Answer> {
        Box::pin(async move {
            let count = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            self.keys
                .lock()
                .unwrap()
                .push(key.key_id.expose().to_owned());
            assert!(!self.panics, "a defect in the issuer");
            if let Some(gate) = &self.held_back {
                gate.notified().await;
            }
            Answer::Minted(Minted {
                secret: Secret::new(format!("token-{count}")),
                sent_at: PausedClock.now(),
                aged: std::time::Duration::ZERO,
                note: None,
            })
        })
    }
}

thread_local! {
    /// When a test began: paused time and its tasks live on one thread.
    static BEGAN: Instant = Instant::now();
    /// How long the machine has slept, which tokio's time did not see.
    static SLEPT: Cell<std::time::Duration> = const { Cell::new(std::time::Duration::ZERO) };
}

/// Both clocks go with tokio's, but for what the machine slept.
pub(super) struct PausedClock;

impl Clock for PausedClock {
    fn now(&self) -> Stamp {
        let since = BEGAN.with(Instant::elapsed) + SLEPT.get();
        let wall = Timestamp::from_second(1_800_000_000).unwrap();
        Stamp {
            wall: wall + SignedDuration::try_from(since).unwrap(),
            boot: 1000 * SECOND + since,
        }
    }

    fn boot_id(&self) -> BootId {
        BootId::new("boot")
    }
}

struct Running {
    issuer: Arc<Scripted>,
    vend: Arc<Vend>,
    tasks: JoinSet<()>,
    keys: tempfile::TempDir,
}

/// A driver and what it works with.
pub(super) struct Started {
    vend: Arc<Vend>,
    tasks: JoinSet<()>,
    pub(super) keys: tempfile::TempDir,
}

fn start(issuer: Scripted) -> Running {
    start_on(Arc::new(MemoryRegister::new()), issuer)
}

fn start_on(register: Arc<dyn Register>, issuer: Scripted) -> Running {
    let issuer = Arc::new(issuer);
    let started = start_with(register, Arc::clone(&issuer) as Arc<dyn Issuer>);
    Running {
        issuer,
        vend: started.vend,
        tasks: started.tasks,
        keys: started.keys,
    }
}

pub(super) fn start_with(register: Arc<dyn Register>, issuer: Arc<dyn Issuer>) -> Started {
    let keys = tempfile::tempdir().unwrap();
    for name in ["id", "key"] {
        fs::write(keys.path().join(name), "first\n").unwrap();
    }
    let key_files = KeyFiles {
        pairs: vec![(keys.path().join("id"), keys.path().join("key"))],
    };
    let (vend, commands) = Vend::new(Status::default());
    let parts = Parts {
        loaded: None,
        settings: Settings {
            account: "account".into(),
            rules: the_real_account(),
            absent: Absent::New,
            holder: "holder".into(),
            boot_id: BootId::new("boot"),
            short_lead: false,
        },
        register,
        issuer,
        keys: key_files.read().unwrap(),
        key_files,
        mint_url: "http://issuer/token".into(),
        clock: Arc::new(PausedClock),
        vend: Arc::clone(&vend),
        commands,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(
        Driver::new(parts, &prometheus::Registry::new())
            .run(CancellationToken::new(), CancellationToken::new()),
    );
    Started { vend, tasks, keys }
}

impl Running {
    fn vends(&self) -> Option<Generation> {
        self.vend
            .current(PausedClock.now())
            .ok()
            .map(|live| live.token.generation)
    }

    fn asked(&self) -> u32 {
        self.issuer.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn it_mints_at_once_and_wakes_when_the_keeper_wishes() {
    let running = start(Scripted::default());
    sleep(SECOND).await;
    let first = running.vends().expect("a token");
    sleep(27 * MINUTE - 3 * SECOND).await;
    assert_eq!(running.asked(), 1);
    sleep(3 * SECOND).await;
    assert_eq!(running.asked(), 2);
    assert!(running.vends() > Some(first));
    assert_eq!(running.vend.status().attempts.len(), 2);
    assert_eq!(running.tasks.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn it_answers_what_it_is_asked_while_a_mint_is_out() {
    let issuer = Scripted {
        held_back: Some(Notify::new()),
        ..Scripted::default()
    };
    let running = start(issuer);
    sleep(SECOND).await;
    let answered = timeout(SECOND, running.vend.report(Generation(7))).await;
    assert_eq!(answered, Ok(Ok(ReportOutcome::StaleGeneration)));
    let answered = timeout(SECOND, running.vend.refresh()).await;
    assert_eq!(answered, Ok(Ok(RefreshOutcome::Refreshing)));
    running.issuer.held_back.as_ref().unwrap().notify_one();
    sleep(SECOND).await;
    assert_eq!((running.asked(), running.vends().is_some()), (1, true));
}

#[tokio::test(start_paused = true)]
async fn an_asker_that_hangs_up_cancels_nothing() {
    let running = start(Scripted::default());
    sleep(40 * MINUTE).await;
    let before = running.asked();
    // Asked, and never waited for: dropped before the driver can answer.
    let waiting = running.vend.refresh();
    assert!(timeout(std::time::Duration::ZERO, waiting).await.is_err());
    sleep(SECOND).await;
    assert_eq!(running.asked(), before + 1);
    assert!(timeout(SECOND, running.vend.refresh()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn changed_key_files_are_read_again_and_broken_ones_are_not() {
    let running = start(Scripted::default());
    sleep(SECOND).await;
    fs::write(running.keys.path().join("id"), "").unwrap();
    sleep(27 * MINUTE).await;
    fs::write(running.keys.path().join("id"), "second").unwrap();
    sleep(27 * MINUTE).await;
    assert_eq!(
        *running.issuer.keys.lock().unwrap(),
        ["first", "first", "second"]
    );
}

#[tokio::test(start_paused = true)]
async fn no_attempt_is_made_with_a_key_that_was_replaced_just_before() {
    let running = start(Scripted::default());
    // So late that no look finds them in time to believe them.
    sleep(27 * MINUTE - SECOND / 2).await;
    for name in ["id", "key"] {
        fs::write(running.keys.path().join(name), "second").unwrap();
    }
    sleep(10 * SECOND).await;
    assert_eq!(*running.issuer.keys.lock().unwrap(), ["first", "second"]);
    let attempts = running.vend.status().attempts.clone();
    let outcomes: Vec<_> = attempts.iter().map(|it| it.outcome).take(2).collect();
    assert_eq!(outcomes, ["minted", "not_sent"], "newest first");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_issuer_ends_the_driver_and_is_not_swallowed() {
    let issuer = Scripted {
        panics: true,
        ..Scripted::default()
    };
    let mut running = start(issuer);
    let ended = timeout(MINUTE, running.tasks.join_next()).await;
    let error = ended.expect("it ends").unwrap().unwrap_err();
    assert!(error.is_panic());
    assert_eq!(running.vend.refresh().await, Err(crate::vend::Gone));
}

#[tokio::test(start_paused = true)]
async fn a_suspend_is_noticed_within_a_second_though_timers_stand_still() {
    let running = start(Scripted::default());
    // Not long after a look at the keys, which would wake it too.
    sleep(11 * SECOND).await;
    let first = running.vends().unwrap();
    SLEPT.set(120 * MINUTE);
    assert_eq!(running.vends(), None, "it has ended");
    sleep(SECOND + SECOND / 10).await;
    assert_eq!(running.asked(), 2);
    assert!(running.vends() > Some(first));
}

#[tokio::test(start_paused = true)]
async fn it_is_idle_while_there_is_nothing_to_do() {
    let running = start(Scripted::default());
    sleep(SECOND).await;
    let before = running.vend.status().at;
    sleep(4 * SECOND + SECOND / 2).await;
    // Nothing but the tick at five seconds, which has come: no step in between.
    let after = running.vend.status().at;
    let apart = after.unwrap().wall.duration_since(before.unwrap().wall);
    assert!(apart >= SignedDuration::from_secs(4), "{apart:?}");
}

/// A disk that hangs: nothing that is asked of it ever ends.
struct Hung;

impl Register for Hung {
    fn load(&self) -> crate::record::Pending<'_, Result<Loaded, RegisterError>> {
        Box::pin(std::future::pending())
    }

    fn swap(&self, _: Option<Version>, _: Record) -> crate::record::Pending<'_, Swapped> {
        Box::pin(std::future::pending())
    }

    fn changed(&self) -> crate::record::Pending<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn name(&self) -> &'static str {
        "hung"
    }
}

#[tokio::test(start_paused = true)]
async fn a_register_that_never_answers_is_told_as_down() {
    let running = start_on(Arc::new(Hung), Scripted::default());
    sleep(6 * SECOND).await;
    let register = running.vend.status().register.clone();
    assert!(!register.up);
    assert_eq!(
        register.detail.as_deref(),
        Some("read the record: no answer within 5s")
    );
    let free = running.vend.status().budget.free.clone();
    assert_eq!(
        (free.routine, free.reported, free.urgent),
        (0, 0, 0),
        "nobody knows of a free slot"
    );
    let refused = running.vend.refresh().await.unwrap();
    assert!(matches!(
        refused,
        RefreshOutcome::Refused {
            waiting_for: "register",
            ..
        }
    ));
    assert_eq!(running.asked(), 0, "nothing is minted without a record");
}
