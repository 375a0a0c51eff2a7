//! The driver on a runtime of many threads: tokens rotate as fast as they can, while callers read, report, refresh, wait and hang up.
//!
//! Time is a number that one task moves on, and nothing here looks at another clock. What is asserted holds however the threads are
//! scheduled: at every read, at every write of the record, and at every request to the issuer.

use super::world::{SECOND, the_real_account};
use crate::budget::Class;
use crate::clock::{BootId, Clock, Stamp};
use crate::issuer::{Answer, Issuer, Key, KeyFiles, Minted, Pending};
use crate::keeper::Settings;
use crate::keeper::driver::{Driver, Parts};
use crate::record::memory::MemoryRegister;
use crate::record::{
    self, Absent, Loaded, Outcome, Record, Register, RegisterError, Swapped, Trigger, Version,
};
use crate::token::{Generation, Secret};
use crate::vend::status::Status;
use crate::vend::{ReportOutcome, Unavailable, Vend};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio_util::sync::CancellationToken;

/// So many times every reader reads at each turn.
const BURST: u64 = 100;

/// Moves only when it is told to.
#[derive(Default)]
struct ToldClock(AtomicU64);

impl ToldClock {
    fn pass(&self, length: Duration) {
        let length = u64::try_from(length.as_nanos()).unwrap();
        self.0.fetch_add(length, Ordering::SeqCst);
    }
}

impl Clock for ToldClock {
    fn now(&self) -> Stamp {
        let since = Duration::from_nanos(self.0.load(Ordering::SeqCst));
        Stamp {
            wall: Timestamp::from_second(1_800_000_000).unwrap()
                + SignedDuration::try_from(since).unwrap(),
            boot: 100_000 * SECOND + since,
        }
    }

    fn boot_id(&self) -> BootId {
        BootId::new("boot")
    }
}

/// Counts what arrives, and asserts law 1 and law 2 at each arrival.
struct Counting {
    clock: Arc<ToldClock>,
    register: Arc<Watched>,
    arrivals: Mutex<Vec<Duration>>,
    /// When the tokens that were given really end.
    ends: Mutex<BTreeMap<String, Duration>>,
    dice: Mutex<fastrand::Rng>,
}

impl Issuer for Counting {
    fn mint<'a>(&'a self, _: &'a Key, send_by: Duration) -> Pending<'a, Answer> {
        Box::pin(async move {
            let detours = self.dice.lock().unwrap().u32(0..4);
            for _ in 0..detours {
                yield_now().await;
            }
            let sent_at = self.clock.now();
            let fate = self.dice.lock().unwrap().u32(0..20);
            if sent_at.boot > send_by || fate == 0 {
                return Answer::NotSent {
                    detail: "no".into(),
                };
            }
            self.arrived(sent_at.boot);
            if fate <= 2 {
                return Answer::Lost {
                    answered: fate == 1,
                    detail: "lost".into(),
                };
            }
            let mut ends = self.ends.lock().unwrap();
            let secret = format!("token-{}", ends.len() + 1);
            ends.insert(secret.clone(), sent_at.boot + the_real_account().lifetime);
            Answer::Minted(Minted {
                secret: Secret::new(secret),
                sent_at,
                aged: Duration::ZERO,
                note: None,
            })
        })
    }
}

impl Counting {
    fn arrived(&self, at: Duration) {
        let budget = the_real_account().budget;
        let mut arrivals = self.arrivals.lock().unwrap();
        arrivals.push(at);
        let since = at.saturating_sub(budget.window);
        let window = arrivals.iter().filter(|it| **it >= since).count();
        assert!(
            window <= budget.limit.get() as usize,
            "law 1: {window} mints in one window"
        );
        let last = self.register.last.lock().unwrap();
        let newest = last.as_ref().and_then(|record| record.ledger.last());
        let open = newest.is_some_and(|slot| slot.outcome == Outcome::Begun);
        assert!(open, "law 2: no slot was reserved for this: {newest:?}");
    }
}

/// A register in memory that looks at everything that is written.
#[derive(Default)]
struct Watched {
    cell: MemoryRegister,
    last: Mutex<Option<Record>>,
    /// Every attempt that was written and not given back, with its class, and when.
    reserved: Mutex<BTreeMap<Generation, (Class, Trigger, Duration)>>,
    /// The generations that somebody has reported, entered before the report is sent.
    reported: Mutex<BTreeSet<Generation>>,
}

impl Watched {
    fn look(&self, next: &Record) {
        let mut last = self.last.lock().unwrap();
        if let Some(last) = &*last {
            let generation = |it: &Record| it.token.as_ref().map(|token| token.generation);
            assert!(generation(next) >= generation(last), "law 3 in the record");
            assert!(next.generation >= last.generation);
        }
        let mut reserved = self.reserved.lock().unwrap();
        let given_back = |slot: &&record::Slot| {
            let gone = next.ledger.iter().all(|it| it.attempt != slot.attempt);
            gone && next.written.at.boot < slot.frees_at.boot
        };
        let before = last.iter().flat_map(|last| &last.ledger);
        for slot in before.filter(given_back) {
            assert_eq!(
                slot.outcome,
                Outcome::Begun,
                "only what was never sent is given back"
            );
            reserved.remove(&slot.attempt);
        }
        for slot in &next.ledger {
            let about = (slot.class, slot.trigger, slot.reserved_at.boot);
            if reserved.insert(slot.attempt, about).is_none() && slot.trigger == Trigger::Report {
                let token = next
                    .token
                    .as_ref()
                    .expect("something was reported")
                    .generation;
                let reported = self.reported.lock().unwrap();
                assert!(reported.contains(&token), "law 8: nobody reported {token}");
            }
        }
        *last = Some(next.clone());
    }

    /// Law 8, over all that was ever reserved: how far apart, and how many in a period.
    fn reported_mints(&self) -> usize {
        let reserved = self.reserved.lock().unwrap();
        let reported = reserved.values().filter(|it| it.0 == Class::Reported);
        let mut times: Vec<Duration> = reported.map(|it| it.2).collect();
        times.sort_unstable();
        let rules = the_real_account();
        for pair in times.windows(2) {
            assert!(pair[1] - pair[0] >= rules.report_pace, "reports are paced");
        }
        let period = rules.budget.period_once_counted();
        for start in &times {
            let of_period = times
                .iter()
                .filter(|at| *at >= start && **at - *start < period);
            assert!(of_period.count() <= 3, "three in a period at the most");
        }
        times.len()
    }

    fn of_trigger(&self, trigger: Trigger) -> usize {
        let reserved = self.reserved.lock().unwrap();
        reserved.values().filter(|it| it.1 == trigger).count()
    }
}

impl Register for Watched {
    fn load(&self) -> record::Pending<'_, Result<Loaded, RegisterError>> {
        self.cell.load()
    }

    fn swap(&self, seen: Option<Version>, next: Record) -> record::Pending<'_, Swapped> {
        self.look(&next);
        self.cell.swap(seen, next)
    }

    fn changed(&self) -> record::Pending<'_, ()> {
        self.cell.changed()
    }

    fn name(&self) -> &'static str {
        "watched"
    }
}

struct Storm {
    clock: Arc<ToldClock>,
    vend: Arc<Vend>,
    register: Arc<Watched>,
    issuer: Arc<Counting>,
    reads: AtomicU64,
    over: AtomicBool,
    /// Counts the steps of time; at each one everybody does something.
    turns: watch::Sender<u64>,
    ended: CancellationToken,
    _keys: tempfile::TempDir,
}

impl Storm {
    /// Everything but the driver, which is given back to be run.
    fn gather() -> (Arc<Self>, Driver) {
        let keys = tempfile::tempdir().unwrap();
        for name in ["id", "key"] {
            std::fs::write(keys.path().join(name), "value").unwrap();
        }
        let key_files = KeyFiles {
            pairs: vec![(keys.path().join("id"), keys.path().join("key"))],
        };
        let clock = Arc::new(ToldClock::default());
        let (vend, commands) = Vend::new(Status::default());
        let register = Arc::new(Watched::default());
        let issuer = Arc::new(Counting {
            clock: Arc::clone(&clock),
            register: Arc::clone(&register),
            arrivals: Mutex::default(),
            ends: Mutex::default(),
            dice: Mutex::new(fastrand::Rng::new()),
        });
        let parts = Parts {
            loaded: None,
            settings: Settings {
                account: "account".into(),
                rules: the_real_account(),
                absent: Absent::New,
                holder: "holder".into(),
                boot_id: clock.boot_id(),
                short_lead: false,
            },
            register: Arc::clone(&register) as Arc<dyn Register>,
            issuer: Arc::clone(&issuer) as Arc<dyn Issuer>,
            keys: key_files.read().unwrap(),
            key_files,
            mint_url: "http://issuer/token".into(),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            vend: Arc::clone(&vend),
            commands,
        };
        let driver = Driver::new(parts, &prometheus::Registry::new());
        let storm = Self {
            clock,
            vend,
            register,
            issuer,
            reads: AtomicU64::new(0),
            over: AtomicBool::new(false),
            turns: watch::Sender::new(0),
            ended: CancellationToken::new(),
            _keys: keys,
        };
        (Arc::new(storm), driver)
    }

    /// Reads on a thread of its own until the end, some hundred times at each turn, and asserts on every read.
    fn read_until_the_end(&self, runtime: &Handle) {
        let _failed = End(self);
        let mut turns = self.turns.subscribe();
        let mut newest: Option<(Generation, Stamp)> = None;
        let mut suspect = false;
        let mut reads = 0_u64;
        while !self.is_over() {
            let now = self.clock.now();
            match (self.vend.current(now), newest) {
                (Ok(live), before) => {
                    let token = &live.token;
                    assert!(!token.expired(now), "law 4: {} has ended", token.generation);
                    if before.map(|it| it.0) != Some(token.generation) {
                        assert!(
                            before.is_none_or(|it| it.0 < token.generation),
                            "law 3: back to {}",
                            token.generation
                        );
                        let ends = self.issuer.ends.lock().unwrap()[token.secret.expose()];
                        assert!(
                            token.expires_at.boot <= ends,
                            "law 4: it ends later than it does"
                        );
                        suspect = false;
                    }
                    assert!(live.suspect || !suspect, "a mark is not taken back");
                    suspect = live.suspect;
                    assert_eq!(live.text, token.secret.expose());
                    newest = Some((token.generation, token.expires_at));
                }
                (Err(Unavailable::NoTokenYet), before) => {
                    assert!(before.is_none(), "law 3: it is gone");
                }
                (Err(Unavailable::Expired), before) => {
                    let lives = before.filter(|(_, expires_at)| !expires_at.reached(now));
                    assert!(lives.is_none(), "law 4: {lives:?} is kept back at {now:?}");
                }
            }
            let status = self.vend.status();
            let shown = status.token.as_ref().map(|token| token.generation);
            assert!(
                shown
                    <= self
                        .register
                        .last
                        .lock()
                        .unwrap()
                        .as_ref()
                        .map(|it| it.generation)
            );
            reads += 1;
            if reads.is_multiple_of(BURST) {
                self.reads.fetch_add(BURST, Ordering::Relaxed);
                runtime
                    .block_on(turns.changed())
                    .expect("it lives as long as the storm");
            }
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn current(&self) -> Option<Generation> {
        let live = self.vend.current(self.clock.now());
        live.ok().map(|live| live.token.generation)
    }

    /// Says that this generation is refused, whatever comes of it.
    async fn report(&self, generation: Generation) {
        self.register.reported.lock().unwrap().insert(generation);
        let outcome = self.vend.report(generation).await;
        assert!(outcome.is_ok() || self.is_over(), "the driver lives");
    }

    /// Says so of one that is not the current one, by now or by then.
    async fn report_stale(&self, dice: &mut fastrand::Rng) {
        let current = self.current().map_or(0, |it| it.0);
        // One that is not allotted yet could become current on the way, so the distance is far.
        let other = if dice.bool() {
            current.saturating_sub(dice.u64(1..5))
        } else {
            current + 1_000_000
        };
        let outcome = self.vend.report(Generation(other)).await;
        let stale = outcome == Ok(ReportOutcome::StaleGeneration);
        assert!(
            stale || self.is_over(),
            "{outcome:?}: {other}, not {current}"
        );
    }

    /// Asks and is gone before the answer: at once, or when the driver is about to give it.
    async fn hang_up(&self, asked: impl Future<Output = ()>, dice: &mut fastrand::Rng) {
        let patience = async {
            for _ in 0..dice.u32(0..3) {
                yield_now().await;
            }
        };
        tokio::select! {
            biased;
            () = patience => {}
            () = asked => {}
        }
    }

    /// Moves time on, with a question at each step, so that the driver takes one too.
    async fn rotate(&self, tokens: usize, reads: u64) {
        let mut dice = fastrand::Rng::new();
        let enough = |storm: &Self| {
            storm.issuer.ends.lock().unwrap().len() >= tokens
                && storm.reads.load(Ordering::Relaxed) >= reads
        };
        while !enough(self) && !self.is_over() {
            // Little while an attempt is under way, so that its request begins in time more often than not.
            let claimed =
                |last: &Option<Record>| last.as_ref().is_some_and(|it| it.claim.is_some());
            let under_way = claimed(&self.register.last.lock().unwrap());
            let length = SECOND
                * if under_way {
                    dice.u32(0..3)
                } else {
                    dice.u32(20..200)
                };
            self.clock.pass(length);
            self.turns.send_modify(|turn| *turn += 1);
            self.report_stale(&mut dice).await;
        }
    }
}

/// Ends the storm when it is dropped, by a failure too.
struct End<'a>(&'a Storm);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
        self.0.ended.cancel();
        self.0.turns.send_modify(|turn| *turn += 1);
    }
}

/// A caller that goes on until the storm is over.
type Caller = fn(Arc<Storm>) -> record::Pending<'static, ()>;

/// Runs a storm of these callers until so many tokens were minted and so many reads made.
fn storm(tokens: usize, reads: u64, callers: &[Caller]) -> Arc<Storm> {
    let (storm, driver) = Storm::gather();
    let runtime = Runtime::new().unwrap();
    thread::scope(|scope| {
        let end = End(&storm);
        let readers = [(); 2].map(|()| scope.spawn(|| storm.read_until_the_end(runtime.handle())));
        runtime.block_on(async {
            let mut tasks = JoinSet::new();
            tasks.spawn(driver.run(CancellationToken::new(), storm.ended.clone()));
            for caller in callers {
                tasks.spawn(caller(Arc::clone(&storm)));
            }
            tokio::select! {
                biased;
                () = storm.rotate(tokens, reads) => {}
                Some(ended) = tasks.join_next() => panic!("ended before the end: {ended:?}"),
            }
            drop(end);
            while let Some(ended) = tasks.join_next().await {
                ended.expect("all of them end, and none fails");
            }
        });
        for reader in readers {
            reader.join().expect("every read was right");
        }
    });
    assert!(storm.reads.load(Ordering::Relaxed) >= reads);
    storm
}

fn stale_reporter(storm: Arc<Storm>) -> record::Pending<'static, ()> {
    Box::pin(async move {
        let mut dice = fastrand::Rng::new();
        let mut turns = storm.turns.subscribe();
        while turns.changed().await.is_ok() && !storm.is_over() {
            let asked = Arc::clone(&storm);
            let mut theirs = dice.fork();
            let asked = async move { asked.report_stale(&mut theirs).await };
            storm.hang_up(asked, &mut dice).await;
        }
    })
}

fn reporter(storm: Arc<Storm>) -> record::Pending<'static, ()> {
    Box::pin(async move {
        let mut dice = fastrand::Rng::new();
        let mut turns = storm.turns.subscribe();
        while turns.changed().await.is_ok() && !storm.is_over() {
            if let Some(current) = storm.current() {
                if dice.bool() {
                    storm.report(current).await;
                } else {
                    storm.hang_up(storm.report(current), &mut dice).await;
                }
            }
        }
    })
}

fn operator(storm: Arc<Storm>) -> record::Pending<'static, ()> {
    Box::pin(async move {
        let mut dice = fastrand::Rng::new();
        let mut turns = storm.turns.subscribe();
        while turns.changed().await.is_ok() && !storm.is_over() {
            let asked = async { _ = storm.vend.refresh().await };
            if dice.bool() {
                asked.await;
            } else {
                storm.hang_up(asked, &mut dice).await;
            }
        }
    })
}

/// Waits for each new token, as a long poll does, and now and then gives up waiting.
fn watcher(storm: Arc<Storm>) -> record::Pending<'static, ()> {
    Box::pin(async move {
        let mut dice = fastrand::Rng::new();
        let mut newest = None;
        let mut watch = storm.vend.watch();
        while !storm.is_over() {
            let woken_for = *watch.borrow_and_update();
            assert!(woken_for >= newest, "it goes back to {woken_for:?}");
            newest = woken_for;
            if let Ok(live) = storm.vend.current(storm.clock.now()) {
                assert!(
                    Some(live.token.generation) >= newest,
                    "woken before it is there"
                );
            }
            tokio::select! {
                changed = watch.changed() => changed.expect("it lives as long as the process"),
                () = storm.ended.cancelled() => {}
                () = yield_now(), if dice.bool() => watch = storm.vend.watch(),
            }
        }
    })
}

#[test]
fn reports_of_other_tokens_never_mint_whoever_else_asks_reads_or_hangs_up() {
    let callers: [Caller; 6] = [
        stale_reporter,
        stale_reporter,
        stale_reporter,
        watcher,
        watcher,
        watcher,
    ];
    let storm = storm(40, 150_000, &callers);
    let register = &storm.register;
    assert_eq!(register.of_trigger(Trigger::Report), 0, "law 8");
    assert_eq!(register.of_trigger(Trigger::Operator), 0);
    assert!(register.of_trigger(Trigger::Schedule) >= 10);
}

#[test]
fn a_storm_of_reports_and_refreshes_mints_no_more_than_the_laws_allow() {
    let callers: [Caller; 8] = [
        reporter,
        reporter,
        reporter,
        stale_reporter,
        operator,
        operator,
        watcher,
        watcher,
    ];
    let storm = storm(80, 150_000, &callers);
    let reported = storm.register.reported_mints();
    assert!(reported > 0, "not one report was believed");
    assert!(storm.register.of_trigger(Trigger::Operator) > 0);
}
