use super::*;

use std::fs;
use std::path::Path;
use std::thread::yield_now;

use prometheus::Registry;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::caller::guard::Refusal;
use crate::caller::rule::{Named, Right};
use crate::caller::{self, Callers, Visitor};
use crate::listener::testing::{HandClock, LOOPBACK, UNIX, at};
use crate::listener::{Connection, Names, Peer};
use crate::token::{Generation, Secret, Token};

const SECRET: &str = "hush-hush-hush";

fn token(generation: u64) -> Token {
    Token {
        generation: Generation(generation),
        secret: Secret::new(SECRET.into()),
        issued_at: at(0),
        refresh_at: at(1),
        expires_at: at(100),
    }
}

struct House {
    callers: Arc<Callers>,
    clock: Arc<HandClock>,
    file: PathBuf,
    _folder: tempfile::TempDir,
}

impl House {
    fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("audit.jsonl");
        let clock = Arc::new(HandClock::new());
        let orders = Named {
            name: "orders".into(),
            uids: Vec::new(),
            gids: Vec::new(),
            sans: vec!["spiffe://prod/ns/*/sa/orders".parse().unwrap()],
            may: [Right::Vend, Right::Watch].into_iter().collect(),
            rate: None,
            streams: None,
        };
        let settings = caller::Settings {
            named: vec![orders],
            audit: Settings::File(file.clone()),
            ..caller::Settings::default()
        };
        Self {
            callers: Callers::new(&settings, clock.clone(), &Registry::new()).unwrap(),
            clock,
            file,
            _folder: folder,
        }
    }

    fn visitor(&self, peer: Peer, uri: Option<&str>) -> Arc<Visitor> {
        let names = uri.map(|uri| Names {
            uris: vec![uri.into()],
            dns: Vec::new(),
        });
        let connection = Connection {
            peer,
            names: names.map(Arc::new),
            drain: CancellationToken::new(),
        };
        Arc::new(self.callers.visitor(&connection, "grpc"))
    }

    /// The lines, once there are so many.
    fn lines(&self, number: usize) -> Vec<String> {
        lines(&self.file, number)
    }
}

fn lines(file: &Path, number: usize) -> Vec<String> {
    let read = std::iter::repeat_with(|| {
        yield_now();
        fs::read_to_string(file).unwrap()
    });
    let mut there = read.take(10_000_000).skip_while(|text| {
        let whole = text.ends_with('\n') || text.is_empty();
        !whole || text.lines().count() < number
    });
    let text = there.next().expect("the lines come");
    assert!(!text.contains(SECRET));
    text.lines().map(str::to_owned).collect()
}

#[test]
fn every_line_is_the_documented_one() {
    let house = House::open();
    let other = Peer::Other("10.1.2.3:4000".parse().unwrap());
    let local = house.visitor(LOOPBACK, None);
    let orders = house.visitor(other, Some("spiffe://prod/ns/shop/sa/orders"));
    let mut watching = orders.watches().unwrap();
    watching.sent(&token(7));
    watching.sent(&token(7));
    local.vended(&token(7));
    house.clock.set(at(90));
    watching.sent(&token(8));
    watching.ended("draining");
    drop(watching);
    drop(house.visitor(UNIX, None).watches().unwrap());
    local.reported(Generation(8), "refreshing");
    local.refused(Refusal::Browser);
    orders.may(Right::Report).unwrap_err();
    house
        .visitor(other, Some("spiffe://dev/x"))
        .known()
        .unwrap_err();
    house.callers.operated(UNIX, "refresh", "not_now");
    house.callers.operator_refused(other, "log", "not_local");
    // Of these, lines are missing for ten seconds.
    let audit = &house.callers.audit;
    audit.skip(&audit.strangers);
    audit.skip(&audit.strangers);
    audit.skip(orders.share());
    house.clock.set(at(100));
    house.callers.operated(UNIX, "log", "changed");
    let written = house.lines(16).join("\n") + "\n";
    let documented = include_str!("../../../tests/golden/audit.txt");
    assert_eq!(written, documented, "\n{written}");
}

#[test]
fn a_generation_is_told_once_for_each_caller() {
    let house = House::open();
    let doors = [house.visitor(LOOPBACK, None), house.visitor(UNIX, None)];
    for generation in [7, 7, 8, 7, 8, 9] {
        for door in &doors {
            door.vended(&token(generation));
        }
    }
    house.callers.operated(UNIX, "refresh", "last");
    let generations: Vec<Value> = house
        .lines(4)
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["generation"].clone())
        .collect();
    assert_eq!(generations, [7.into(), 8.into(), 9.into(), Value::Null]);
}

/// All lines of a file, once those that were told before this are there.
fn told(house: &House) -> Vec<Value> {
    // This is never left out.
    house.visitor(LOOPBACK, None).vended(&token(999));
    let parsed = |line: &String| serde_json::from_str::<Value>(line).unwrap();
    let read = || house.lines(1).iter().map(parsed).collect::<Vec<_>>();
    let mut read = std::iter::repeat_with(read).take(1_000_000);
    read.find(|lines| lines.iter().any(|it| it["generation"] == 999))
        .expect("the line is told")
}

fn left_out(lines: &[Value], caller: &str) -> u64 {
    let of = |line: &&Value| line["event"] == "left_out" && line["caller"] == caller;
    let counts = lines.iter().filter(of);
    counts.map(|line| line["lines"].as_u64().unwrap()).sum()
}

#[test]
fn a_flood_of_refusals_is_left_out_counted_and_hides_nothing_else() {
    let house = House::open();
    let visitor = house.visitor(LOOPBACK, None);
    const FLOOD: u64 = 100_000;
    for _ in 0..FLOOD {
        visitor.refused(Refusal::Unmarked);
    }
    // Another caller, and those without a name, are told of all the same.
    let other = Peer::Other("10.1.2.3:4000".parse().unwrap());
    let orders = house.visitor(other, Some("spiffe://prod/ns/shop/sa/orders"));
    orders.may(Right::Report).unwrap_err();
    let stranger = house.visitor(other, Some("spiffe://dev/x"));
    stranger.known().unwrap_err();
    visitor.vended(&token(7));
    house.clock.set(at(10));
    house.callers.operated(UNIX, "refresh", "refreshing");
    let lines = told(&house);
    let of = |caller: &str, event: &str| {
        let mut lines = lines.iter();
        lines.any(|line| line["caller"] == caller && line["event"] == event)
    };
    assert!(of("orders", "refused") && of("local", "first_vend"));
    assert!(lines.iter().any(|line| line["outcome"] == "unknown_caller"));
    // A hundred at once, and one more for each second that the flood took.
    let refused = lines.iter().filter(|line| line["outcome"] == "unmarked");
    let refused = refused.count() as u64;
    assert_eq!(refused + left_out(&lines, "local"), FLOOD);
    assert!((100..1_000).contains(&refused), "{refused}");
}

#[test]
fn a_flood_of_watches_is_bounded_by_its_caller_and_hides_nothing_of_others() {
    let house = House::open();
    let local = house.visitor(LOOPBACK, None);
    let before = local.watches().unwrap();
    const FLOOD: u64 = 20_000;
    for _ in 0..FLOOD {
        drop(local.watches().unwrap());
    }
    let other = Peer::Other("10.1.2.3:4000".parse().unwrap());
    let orders = house.visitor(other, Some("spiffe://prod/ns/shop/sa/orders"));
    drop(orders.watches().unwrap());
    local.reported(Generation(7), "stale_generation");
    drop(before);
    house.clock.set(at(10));
    house.callers.operated(UNIX, "refresh", "refreshing");
    let lines = told(&house);
    let count = |caller: &str, event: &str| {
        let lines = lines.iter();
        let of = lines.filter(|line| line["caller"] == caller && line["event"] == event);
        of.count() as u64
    };
    assert_eq!(count("orders", "stream_opened"), 1);
    assert_eq!(count("orders", "stream_closed"), 1);
    assert_eq!(count("local", "report"), 1);
    // A watch is told whole or not at all.
    let opened = count("local", "stream_opened");
    assert_eq!(opened, count("local", "stream_closed"));
    assert!((1_000..2_000).contains(&opened), "{opened}");
    assert_eq!(2 * opened + left_out(&lines, "local"), 2 * (FLOOD + 1));
    assert_eq!(left_out(&lines, "orders"), 0);
}

#[test]
fn an_operator_that_floods_hides_no_other_one() {
    let house = House::open();
    for _ in 0..20_000 {
        house.callers.operated(UNIX, "refresh", "not_now");
        house.callers.operator_refused(LOOPBACK, "log", "browser");
    }
    house.callers.operated(LOOPBACK, "refresh", "refreshing");
    house.callers.operator_refused(UNIX, "log", "unmarked");
    let lines = told(&house);
    assert!(lines.iter().any(|line| line["outcome"] == "refreshing"));
    assert!(lines.iter().any(|line| line["outcome"] == "unmarked"));
    assert!(lines.len() < 3_000, "{}", lines.len());
}

#[test]
fn what_is_missing_at_the_end_is_told_at_the_end() {
    let house = House::open();
    let visitor = house.visitor(LOOPBACK, None);
    for _ in 0..1_000 {
        visitor.refused(Refusal::Unmarked);
    }
    let (file, _folder) = (house.file.clone(), house._folder);
    drop((visitor, house.callers));
    let text = fs::read_to_string(file).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(last["event"], "left_out");
    assert_eq!(lines.len() as u64 - 1 + left_out(&lines, "local"), 1_000);
}

#[test]
fn off_is_off() {
    let settings = caller::Settings {
        audit: Settings::Off,
        ..caller::Settings::default()
    };
    let clock = Arc::new(HandClock::new());
    let callers = Callers::new(&settings, clock, &Registry::new()).unwrap();
    let told = logged(|| callers.operated(UNIX, "refresh", "refreshing"));
    assert_eq!(told, "");
}

/// What is in the log after this, as JSON.
fn logged(what: impl FnOnce()) -> String {
    use crate::telemetry::{Format, Settings, subscriber};
    #[derive(Clone, Default)]
    struct Kept(Arc<std::sync::Mutex<Vec<u8>>>);
    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let settings = Settings {
        format: Format::Json,
        ..Settings::default()
    };
    let kept = Kept::default();
    let writer = kept.clone();
    let (log, _filter) = subscriber(&settings, false, move || writer.clone());
    tracing::subscriber::with_default(log, what);
    let text = kept.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap()
}

#[test]
fn the_log_has_the_same_fields_as_the_file() {
    let settings = caller::Settings::default();
    let clock = Arc::new(HandClock::new());
    let callers = Callers::new(&settings, clock, &Registry::new()).unwrap();
    let connection = Connection {
        peer: LOOPBACK,
        names: None,
        drain: CancellationToken::new(),
    };
    let visitor = Arc::new(callers.visitor(&connection, "http"));
    let told = logged(|| {
        visitor.vended(&token(7));
        visitor.reported(Generation(7), "refreshing");
        drop(visitor.watches().unwrap());
    });
    let lines: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [vend, report, opened, closed] = lines.as_slice() else {
        panic!("{told}")
    };
    for line in &lines {
        assert_eq!(
            (&line["target"], &line["level"]),
            (&"audit".into(), &"INFO".into())
        );
        assert_eq!(
            (&line["caller"], &line["transport"]),
            (&"local".into(), &"http".into())
        );
        assert!(
            line["timestamp"].is_string() && line["from"] == "127.0.0.1:49152",
            "{line}"
        );
    }
    assert_eq!(
        (&vend["event"], &vend["generation"]),
        (&"first_vend".into(), &7.into())
    );
    assert_eq!(vend["fingerprint"], token(7).secret.fingerprint());
    assert_eq!(
        (&report["event"], &report["outcome"]),
        (&"report".into(), &"refreshing".into())
    );
    assert_eq!(opened["event"], "stream_opened");
    assert_eq!(
        (&closed["event"], &closed["outcome"]),
        (&"stream_closed".into(), &"hung_up".into())
    );
    assert!(!told.contains(SECRET));
}

#[test]
fn a_name_that_fills_no_line_is_shown() {
    let house = House::open();
    let long = format!("spiffe://dev/{}", "x".repeat(10_000));
    house.visitor(LOOPBACK, Some(&long)).known().unwrap_err();
    let lines = house.lines(1);
    assert!(lines[0].len() < 300, "{}", lines[0]);
}
