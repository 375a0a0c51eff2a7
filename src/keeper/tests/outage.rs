//! What the log says of an outage of two hours, at the real account's pace, on a clock of its own.

use super::driver::{PausedClock, start_with};
use super::world::{MINUTE, SECOND};
use crate::clock::Clock;
use crate::issuer::{Answer, Issuer, Key, Minted, Pending};
use crate::record::memory::MemoryRegister;
use crate::record::{self, Loaded, Record, Register, RegisterError, Swapped, Version};
use crate::token::Secret;
use serde_json::{Map, Value};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::fmt::MakeWriter;

/// What goes wrong in an outage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Broken {
    #[default]
    Nothing,
    Connecting,
    Answering,
    Throttled,
    Keys,
    Register,
}

/// An issuer that can be broken. It remembers when it was asked.
#[derive(Clone, Default)]
struct Switch {
    broken: Arc<Mutex<Broken>>,
    asked: Arc<Mutex<Vec<Duration>>>,
}

impl Switch {
    fn set(&self, broken: Broken) {
        *self.broken.lock().unwrap() = broken;
    }

    fn get(&self) -> Broken {
        *self.broken.lock().unwrap()
    }
}

impl Issuer for Switch {
    fn mint<'a>(&'a self, _: &'a Key, _: Duration) -> Pending<'a, Answer> {
        self.asked.lock().unwrap().push(PausedClock.now().boot);
        Box::pin(async move {
            sleep(SECOND / 5).await;
            let detail = String::from("as the test wishes");
            match self.get() {
                Broken::Nothing | Broken::Register => Answer::Minted(Minted {
                    secret: Secret::new(format!("token-{:?}", PausedClock.now().boot)),
                    sent_at: PausedClock.now(),
                    aged: Duration::ZERO,
                    note: None,
                }),
                Broken::Connecting => Answer::NotSent { detail },
                Broken::Answering => Answer::Lost {
                    answered: false,
                    detail,
                },
                Broken::Throttled => Answer::Throttled {
                    retry_after: Some(MINUTE),
                    detail,
                },
                Broken::Keys => Answer::Refused {
                    key_at_fault: true,
                    detail,
                },
            }
        })
    }
}

/// A register that serves until it is broken.
struct Breakable {
    register: MemoryRegister,
    switch: Switch,
}

impl Breakable {
    fn why(&self) -> Option<RegisterError> {
        let broken = self.switch.get() == Broken::Register;
        broken.then(|| RegisterError::Io {
            doing: "write the record".into(),
            why: "no space".into(),
        })
    }
}

impl Register for Breakable {
    fn name(&self) -> &'static str {
        "breakable"
    }

    fn load(&self) -> record::Pending<'_, Result<Loaded, RegisterError>> {
        self.register.load()
    }

    fn swap(&self, seen: Option<Version>, next: Record) -> record::Pending<'_, Swapped> {
        match self.why() {
            Some(why) => Box::pin(async { Swapped::Unavailable(why) }),
            None => self.register.swap(seen, next),
        }
    }

    fn changed(&self) -> record::Pending<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// The lines of the log, each with its moment on the paused clock.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<Line>>>);

/// When it was written, and what it says.
type Line = (Duration, Map<String, Value>);

impl Lines {
    /// Takes all lines of this thread, in the form of a JSON log at `info`.
    fn listen(&self) -> DefaultGuard {
        let lines = tracing_subscriber::fmt().json().flatten_event(true);
        tracing::subscriber::set_default(lines.with_writer(self.clone()).finish())
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let parsed = serde_json::from_slice(line).unwrap();
        let mut lines = self.0.lock().unwrap();
        lines.push((PausedClock.now().boot, parsed));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// One line, and when it came after the beginning of the test.
struct Told {
    at: Duration,
    level: String,
    message: String,
    fields: Map<String, Value>,
}

impl Told {
    fn says(&self, name: &str) -> &str {
        let field = self.fields.get(name).and_then(Value::as_str);
        field.unwrap_or_default()
    }

    fn length(&self, name: &str) -> Duration {
        humantime::parse_duration(self.says(name)).unwrap_or_else(|_| panic!("{:?}", self.fields))
    }
}

/// Two hours without a refresh, begun a minute after the first token; then a token, and half an
/// hour. What the log says, and when the issuer was asked.
async fn two_hours_of(broken: Broken) -> (Vec<Told>, Vec<Duration>) {
    let lines = Lines::default();
    let _until_the_end = lines.listen();
    let began = PausedClock.now().boot;
    let switch = Switch::default();
    let register = Breakable {
        register: MemoryRegister::new(),
        switch: switch.clone(),
    };
    let running = start_with(Arc::new(register), Arc::new(switch.clone()));
    sleep(MINUTE).await;
    switch.set(broken);
    sleep(120 * MINUTE).await;
    switch.set(Broken::Nothing);
    sleep(35 * MINUTE).await;
    drop(running);
    let lines = lines.0.lock().unwrap();
    let told = lines.iter().map(|(at, fields)| Told {
        at: *at - began,
        level: fields["level"].as_str().unwrap().to_owned(),
        message: fields["message"].as_str().unwrap().to_owned(),
        fields: fields.clone(),
    });
    let asked = switch.asked.lock().unwrap().clone();
    (
        told.collect(),
        asked.into_iter().map(|at| at - began).collect(),
    )
}

/// What a case must show. Times are from the first token on.
struct Case {
    broken: Broken,
    /// The first line: when it comes, and what it says.
    begins: (Duration, &'static str),
    /// What attempts wait for, among others.
    waiting_for: &'static str,
    /// How many attempts fail, at least.
    failed: u64,
    /// How long after the mend the next attempt comes, at most.
    healed_within: Duration,
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_two_hours_is_told_as_it_goes_and_never_floods_the_log() {
    let due = 27 * MINUTE;
    for case in [
        Case {
            broken: Broken::Connecting,
            begins: (due, "an attempt to mint failed"),
            waiting_for: "backoff",
            failed: 300,
            healed_within: 20 * SECOND,
        },
        Case {
            broken: Broken::Answering,
            begins: (due, "an attempt to mint failed"),
            waiting_for: "backoff",
            failed: 20,
            healed_within: 12 * MINUTE,
        },
        Case {
            broken: Broken::Throttled,
            begins: (due, "an attempt to mint failed"),
            waiting_for: "backoff",
            failed: 10,
            healed_within: 12 * MINUTE,
        },
        Case {
            broken: Broken::Keys,
            begins: (due, "the issuer refuses our keys"),
            waiting_for: "parked",
            failed: 5,
            healed_within: 16 * MINUTE,
        },
        Case {
            broken: Broken::Register,
            begins: (due, "the register does not serve"),
            waiting_for: "register",
            failed: 0,
            healed_within: 20 * SECOND,
        },
    ] {
        let (told, asked) = two_hours_of(case.broken).await;
        check(&case, &told, &asked);
    }
}

fn check(case: &Case, told: &[Told], asked: &[Duration]) {
    for line in told {
        println!(
            "{:?} {:?} {}",
            case.broken,
            line.at,
            Value::from(line.fields.clone())
        );
    }
    let near = |at: Duration, expected: Duration| at.abs_diff(expected) <= 2 * SECOND;
    let of = |part: &str| -> Vec<&Told> {
        let found = told.iter().filter(|line| line.message.contains(part));
        found.collect()
    };
    let once = |level: &str, part: &str| -> &Told {
        let found = of(part);
        assert_eq!(found.len(), 1, "{:?}: {part}", case.broken);
        assert_eq!(found[0].level, level, "{part}");
        found[0]
    };

    // Never more than two lines in a minute. That there was no record is told beside them.
    let counted: Vec<Duration> = told.iter().map(|line| line.at).skip(1).collect();
    once("INFO", "no record was found");
    for three in counted.windows(3) {
        assert!(three[2] - three[0] >= MINUTE, "{:?}", case.broken);
    }
    // Each state, once and at its moment.
    let first = of(case.begins.1)[0];
    assert!(near(first.at, case.begins.0), "{:?}", first.at);
    assert_eq!(first.level, "WARN");
    let half = once("WARN", "half of the time to replace the token");
    assert!(
        near(half.at, 60 * MINUTE - 33 * MINUTE / 2),
        "{:?}",
        half.at
    );
    let refused = once("ERROR", "every caller is refused");
    assert!(near(refused.at, 60 * MINUTE), "{:?}", refused.at);
    let over = once("INFO", "the outage is over");
    let mended = 121 * MINUTE;
    assert!(
        over.at >= mended && over.at <= mended + case.healed_within + MINUTE,
        "{:?}",
        over.at
    );
    let begun = if case.broken == Broken::Register {
        half.at
    } else {
        first.at
    };
    assert!(over.length("lasted").abs_diff(over.at - begun) <= MINUTE);
    let refused_for = over.length("refused_for");
    assert!(refused_for.abs_diff(over.at - refused.at) <= MINUTE);
    assert!(over.fields["failed"].as_u64().unwrap() >= case.failed);
    // A summary a minute while it lasts.
    let during = told
        .iter()
        .filter(|line| line.at >= first.at && line.at <= over.at);
    let during: Vec<&Told> = during.collect();
    let minutes = (over.at - first.at).as_secs() / 60;
    let summaries = during.iter().filter(|line| {
        line.message.contains("the outage goes on") || line.message.contains("still does not")
    });
    let summaries = u64::try_from(summaries.count()).unwrap();
    // Each parked attempt has a line of its own.
    assert!(
        summaries.abs_diff(minutes) <= 10,
        "{summaries} in {minutes}"
    );
    for line in during {
        let (at, waits) = (line.says("next"), line.says("waiting_for"));
        assert!(at.ends_with('Z') && at.len() == 20, "{at}");
        assert!(line.length("next_in") <= 33 * MINUTE);
        assert!(!waits.is_empty());
        let alive = line.at < refused.at;
        assert_eq!(
            line.fields.contains_key("token_until"),
            alive || line.at == over.at
        );
        if line.level == "WARN" && line.at > first.at + 10 * MINUTE {
            assert!(line.fields["failed"].as_u64().unwrap() > 0 || case.failed == 0);
        }
    }
    // What a line says of the next attempt comes true.
    for line in of("failed").into_iter().chain(of("refuses our keys")) {
        let next = line.at + line.length("next_in");
        let known = asked.iter().any(|at| near(*at, next));
        assert!(known, "{:?}: nothing was asked at {next:?}", case.broken);
    }
    let waits = told.iter().map(|line| line.says("waiting_for"));
    let waits: Vec<&str> = waits.collect();
    assert!(waits.contains(&case.waiting_for), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn changed_keys_say_when_they_are_tried() {
    let lines = Lines::default();
    let _until_the_end = lines.listen();
    let running = start_with(Arc::new(MemoryRegister::new()), Arc::new(Switch::default()));
    sleep(5 * MINUTE).await;
    std::fs::write(running.keys.path().join("id"), "second").unwrap();
    sleep_until(Instant::now() + 10 * SECOND).await;
    let lines = lines.0.lock().unwrap();
    let (_, changed) = lines.last().unwrap();
    assert_eq!(changed["message"], "the keys have changed");
    assert_eq!(changed["keys"], 1);
    assert_eq!(changed["waiting_for"], "schedule");
    let next = humantime::parse_duration(changed["next_in"].as_str().unwrap()).unwrap();
    assert!(next.abs_diff(22 * MINUTE) < 20 * SECOND, "{next:?}");
}
