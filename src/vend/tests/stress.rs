//! One publisher, many readers and watchers on threads of their own: a million reads while tokens come and end, and an assertion on
//! every one of them.
//!
//! The publisher says beforehand what it is about to put out, and afterwards what is out. Between the two a reader may see either;
//! nothing else.

use super::*;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use tokio::time::timeout;

const READERS: u64 = 4;
const READS: u64 = 1_000_000;
const GENERATIONS: u64 = 1_000;

/// A token is out for so many seconds of the story; some end before their successors come.
fn expires(generation: u64) -> u64 {
    generation * 10 + if generation.is_multiple_of(7) { 8 } else { 25 }
}

fn secret(generation: u64) -> String {
    format!(
        "token-{generation}-{}",
        "x".repeat(generation as usize % 50)
    )
}

fn told(generation: u64, suspect: bool) -> Live {
    let token = Token {
        generation: Generation(generation),
        secret: Secret::new(secret(generation)),
        issued_at: at(generation),
        refresh_at: at(generation + 1),
        expires_at: at(expires(generation)),
    };
    Live::new(token, suspect)
}

/// The whole answer, put together by other means.
fn document(generation: u64, suspect: bool, now: u64) -> String {
    let wall = |second: u64| at(second).wall;
    format!(
        "{{\"access_token\":\"{}\",\"token_type\":\"Bearer\",\"expires_in\":{},\"expires_at\":\"{}\",\"issued_at\":\"{}\",\"generation\":{generation},\"suspect\":{suspect}}}\n",
        secret(generation),
        expires(generation) - now,
        wall(expires(generation)),
        wall(generation),
    )
}

struct Story {
    vend: Arc<Vend>,
    now: AtomicU64,
    /// The newest generation that is out for certain; one in the low bit once it is marked.
    out: AtomicU64,
    /// The newest that may be.
    coming: AtomicU64,
    reads: AtomicU64,
    over: AtomicBool,
}

fn packed(generation: u64, suspect: bool) -> u64 {
    generation * 2 + u64::from(suspect)
}

impl Story {
    fn begin() -> (Arc<Self>, mpsc::Receiver<Command>) {
        let (vend, commands) = Vend::new(Status::default());
        let story = Self {
            vend,
            now: AtomicU64::new(0),
            out: AtomicU64::new(0),
            coming: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            over: AtomicBool::new(false),
        };
        (Arc::new(story), commands)
    }

    fn publish(&self, generation: u64, suspect: bool) {
        let packed = packed(generation, suspect);
        self.coming.fetch_max(packed, Ordering::SeqCst);
        self.vend.publish(told(generation, suspect));
        self.out.fetch_max(packed, Ordering::SeqCst);
    }

    /// The next token, its mark, an older one that must not come back, and the passing of its time.
    fn turn(&self, generation: u64) {
        self.publish(generation, false);
        let mut status = Status {
            minting: Some(Generation(generation)),
            account: generation.to_string(),
            ..Status::default()
        };
        status.register.detail = Some(secret(generation));
        self.vend.publish_status(status);
        if generation > 1 {
            self.vend.publish(told(generation - 1, true));
        }
        for second in 1..=10 {
            if second == 5 && generation.is_multiple_of(3) {
                self.publish(generation, true);
            }

            self.now.store(generation * 10 + second, Ordering::SeqCst);
        }
    }

    /// How many reads found a live token, and how many found that it had ended.
    fn read_until_the_end(&self) -> (u64, u64) {
        let mut reader = Reader::default();
        while !self.over.load(Ordering::Relaxed) {
            reader.read(self);
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        (reader.live, reader.ended)
    }
}

/// What one reader has seen, and what it expects of the token that it sees.
#[derive(Debug, Default)]
struct Reader {
    newest: u64,
    etag: String,
    text: String,
    statuses: u64,
    live: u64,
    ended: u64,
}

impl Reader {
    fn read(&mut self, story: &Story) {
        let now = story.now.load(Ordering::SeqCst);
        let out = story.out.load(Ordering::SeqCst);
        let read = story.vend.current(at(now));
        let coming = story.coming.load(Ordering::SeqCst);
        match read {
            Ok(live) => {
                let (generation, suspect) = (live.token.generation.0, live.suspect);
                let seen = packed(generation, suspect);
                assert!(
                    seen >= self.newest,
                    "{seen} after {}: it goes back",
                    self.newest
                );
                assert!((out..=coming).contains(&seen), "{out} ≤ {seen} ≤ {coming}");
                assert!(
                    now < expires(generation),
                    "{generation} at {now}: it has ended"
                );
                self.belongs_together(&live, now);
                (self.newest, self.live) = (seen, self.live + 1);
            }
            Err(Unavailable::NoTokenYet) => assert_eq!((out, self.newest), (0, 0)),
            Err(Unavailable::Expired) => {
                // Whatever was out by the time of the reading, or came since, must have ended at that time.
                let newest = self.newest.max(out) / 2;
                let ended = |generation: u64| generation > 0 && expires(generation) <= now;
                assert!((newest..=coming / 2).any(ended), "{newest} lives at {now}");
                self.ended += 1;
            }
        }
        self.read_status(story);
    }

    fn belongs_together(&mut self, live: &Live, now: u64) {
        let generation = live.token.generation.0;
        if self.newest / 2 != generation {
            self.text = secret(generation);
            let fingerprint = Secret::new(self.text.clone()).fingerprint();
            self.etag = format!("W/\"{generation}-{fingerprint}\"");
        }
        assert_eq!(live.text, self.text);
        assert_eq!(live.etag.as_bytes(), self.etag.as_bytes());
        let json = live.json(at(now));
        if self.live.is_multiple_of(8) {
            assert_eq!(json, document(generation, live.suspect, now));
        } else {
            // The whole of it is eight times the work; what could come from another second or token is at its ends.
            let left = format!("\"expires_in\":{},", expires(generation) - now);
            let whole = std::str::from_utf8(&json).expect("JSON is UTF-8");
            assert!(whole.contains(&left), "{whole} at {now}");
            assert!(
                whole[17..].starts_with(&*self.text) && whole.ends_with("}\n"),
                "{whole}"
            );
        }
    }

    fn read_status(&mut self, story: &Story) {
        let status = story.vend.status();
        let Some(generation) = status.minting else {
            assert_eq!(self.statuses, 0, "it goes back to nothing");
            return;
        };
        assert!(generation.0 >= self.statuses, "it goes back");
        self.statuses = generation.0;
        if self.live.is_multiple_of(8) {
            assert_eq!(status.account, generation.to_string());
            assert_eq!(status.register.detail, Some(secret(generation.0)));
        }
    }
}

/// Follows the tokens as a long poll does, until `look` breaks off. Whoever is not woken in a minute never will be.
fn follow(vend: &Vend, mut look: impl FnMut(u64) -> ControlFlow<()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    runtime.block_on(async {
        let mut watch = vend.watch();
        loop {
            let woken_for = watch.borrow_and_update().map_or(0, |it| it.0);
            if look(woken_for).is_break() {
                return;
            }
            let woken = timeout(Duration::from_secs(60), watch.changed()).await;
            woken.expect("it is woken").expect("it is not over");
        }
    });
}

#[test]
fn a_million_reads_under_rotation_see_no_token_go_back_end_late_or_come_apart() {
    let (story, _commands) = Story::begin();
    let last = thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|_| scope.spawn(|| story.read_until_the_end()))
            .collect();
        // A watcher that does not look delays nobody, and sees the last token when it looks at last.
        let asleep = story.vend.watch();
        let mut generation = 0;
        while generation < GENERATIONS || story.reads.load(Ordering::Relaxed) < READS {
            generation += 1;
            story.turn(generation);
            if readers.iter().any(thread::ScopedJoinHandle::is_finished) {
                break; // It has failed, and says so when it is joined.
            }
        }
        story.over.store(true, Ordering::Relaxed);
        assert!(asleep.has_changed().unwrap());
        assert_eq!(*asleep.borrow(), Some(Generation(generation)));
        let seen = readers.into_iter().map(|it| it.join().unwrap());
        let (live, ended): (Vec<u64>, Vec<u64>) = seen.unzip();
        assert!(live.iter().sum::<u64>() > 0 && ended.iter().sum::<u64>() > 0);
        generation
    });
    let reads = story.reads.load(Ordering::Relaxed);
    assert!(
        reads >= READS && last >= GENERATIONS,
        "{reads} reads, {last} tokens"
    );
}

#[test]
fn watchers_never_go_back_and_always_see_the_last_token() {
    let (story, _commands) = Story::begin();
    let following = |every: u64| {
        let mut newest = 0;
        let mut looks = 0;
        follow(&story.vend, |woken_for| {
            assert!(woken_for >= newest, "{woken_for} after {newest}");
            (newest, looks) = (woken_for, looks + 1);
            // What one is woken for is there: the wake-up comes after the token.
            let now = story.now.load(Ordering::SeqCst);
            match story.vend.current(at(now)) {
                Ok(live) => assert!(live.token.generation.0 >= woken_for),
                Err(Unavailable::NoTokenYet) => assert_eq!(woken_for, 0),
                Err(Unavailable::Expired) => {}
            }
            if every > 1 {
                (0..every).for_each(|_| thread::yield_now());
            }
            if woken_for == GENERATIONS {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        looks
    };
    let looks: Vec<u64> = thread::scope(|scope| {
        let watchers = [1, 1, 3, 1000].map(|every| scope.spawn(move || following(every)));
        for generation in 1..=GENERATIONS {
            story.turn(generation);
        }
        watchers.map(|it| it.join().unwrap()).into()
    });
    assert!(looks.iter().all(|looks| *looks <= 2 * GENERATIONS + 1));
}

#[test]
fn every_publish_wakes_every_watcher_that_waits() {
    const ROUNDS: u64 = 500;
    const WATCHERS: u64 = 4;
    let (story, _commands) = Story::begin();
    let (seen, sight) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..WATCHERS {
            let (seen, vend) = (seen.clone(), &story.vend);
            scope.spawn(move || {
                follow(vend, |woken_for| {
                    let marked = vend.current(at(0)).is_ok_and(|live| live.suspect);
                    seen.send(packed(woken_for, marked)).unwrap();
                    if marked && woken_for == ROUNDS {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
            });
        }
        drop(seen);
        // All of them have looked, and nobody has seen anything. The next is put out only once everybody has seen the last.
        let all_see = |what: u64| (0..WATCHERS).for_each(|_| assert_eq!(sight.recv(), Ok(what)));
        all_see(0);
        for generation in 1..=ROUNDS {
            for suspect in [false, true] {
                story.publish(generation, suspect);
                all_see(packed(generation, suspect));
            }
        }
    });
}
