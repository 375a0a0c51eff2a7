//! The mistakes of a first day, at the real pace: a key, a setting or a front that is wrong, and is
//! mended after a while. What the issuer and the front answer is judged by the real client.

use super::world::*;
use crate::issuer::KeyFiles;
use crate::keeper::Note;
use crate::record::{Absent, Outcome};
use crate::vend::RefreshOutcome;
use std::fs;
use std::time::Duration;

/// How a mistake is mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mend {
    /// The key files are written anew; the running daemon reads them.
    Keys,
    /// The settings are changed, and the daemon is started again.
    Settings,
    /// The account in the settings is changed, and the daemon is started again.
    Account,
    /// The daemon does not start at all before the files are right.
    Start,
    /// Nobody does anything: what stands before the issuer works again.
    Front,
}

struct Mistake {
    what: &'static str,
    answer: Reply,
    mend: Mend,
}

const HTML: &str = "<html><body><h1>Something went wrong</h1></body></html>";

/// How long the driver may take to believe new key files: it looks every 5 s, and what it finds
/// must stay the same for 1 s.
const BELIEVED_AFTER: Duration = Duration::from_secs(6);

const MENDED_AFTER: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(20),
    Duration::from_secs(5 * 60),
    Duration::from_secs(40 * 60),
];

fn mistakes() -> Vec<Mistake> {
    let refused = |status, body| Reply::Http(status, None, body);
    let key = r#"{"slug":"authorization-error","message":"invalid api key"}"#;
    let request = r#"{"slug":"invalid-input","message":"api_key is required"}"#;
    let account = r#"{"slug":"not-found","message":"no such client"}"#;
    let of = |what, answer, mend| Mistake { what, answer, mend };
    vec![
        of("both key files are equal", refused(401, key), Mend::Keys),
        of(
            "the halves of the key are swapped",
            refused(400, request),
            Mend::Keys,
        ),
        of(
            "the key is written with quotes",
            refused(401, key),
            Mend::Keys,
        ),
        of(
            "the key begins with a byte order mark",
            refused(401, key),
            Mend::Start,
        ),
        of("a wrong key", refused(401, key), Mend::Keys),
        of("a wrong account", refused(404, account), Mend::Account),
        of("a wrong base URL", refused(404, HTML), Mend::Settings),
        of(
            "a wrong mint path",
            refused(405, r#"{"message":"Method Not Allowed"}"#),
            Mend::Settings,
        ),
        of(
            "the front redirects",
            Reply::Http(302, Some("https://login.example/"), ""),
            Mend::Front,
        ),
        of("a proxy forbids it", refused(403, HTML), Mend::Front),
        of(
            "the front has nothing behind it",
            refused(503, HTML),
            Mend::Front,
        ),
        of(
            "Truecaller has an outage",
            refused(
                503,
                r#"{"slug":"internal-server-error","message":"try later"}"#,
            ),
            Mend::Front,
        ),
    ]
}

struct Course {
    /// From the mend to the vended token.
    took: Duration,
    before: usize,
    after: usize,
}

/// One mistake from the start to the first token, mended after this time.
fn course(mistake: &Mistake, mended_after: Duration) -> Course {
    let mut world = World::new(the_real_account(), 1);
    world.otherwise = mistake.answer.clone();
    if mistake.mend == Mend::Account {
        world.account = "acount".into();
    }
    if mistake.mend != Mend::Start {
        world.start(0);
    }
    world.run(mended_after);
    let before = world.arrivals.len();
    let mended = world.now;
    assert!(world.daemons[0].life.is_none() || world.vends(0).is_none());
    if mistake.mend == Mend::Keys {
        // Until the files are believed, they are not used.
        world.run(BELIEVED_AFTER);
    }
    world.otherwise = Reply::Token;
    match mistake.mend {
        Mend::Keys => world.set_keys(0, "mended", 1),
        Mend::Settings | Mend::Account | Mend::Start => {
            world.kill(0);
            world.account = "account".into();
            world.daemons[0].keys = ("mended".into(), 1);
            world.start(0);
        }
        Mend::Front => {}
    }
    while world.vends(0).is_none() {
        world.run(SECOND / 10);
        assert!(world.now < mended + 40 * MINUTE, "{}", mistake.what);
    }
    Course {
        took: world.now - mended,
        before,
        after: world.arrivals.len() - before,
    }
}

#[test]
fn a_mistake_that_was_mended_costs_seconds() {
    let blind_pace = the_real_account().budget.blind_pace();
    let mut table = String::new();
    for mistake in mistakes() {
        for mended_after in MENDED_AFTER {
            let Course {
                took,
                before,
                after,
            } = course(&mistake, mended_after);
            let what = mistake.what;
            table += &format!(
                "{what:<40} {:>5} s   {:>6.1} s   {before} + {after}\n",
                mended_after.as_secs(),
                took.as_secs_f64()
            );
            let most = match mistake.mend {
                Mend::Front if mended_after > 30 * MINUTE => 2 * blind_pace,
                Mend::Front => blind_pace,
                _ => 10 * SECOND,
            };
            let late = took.saturating_sub(most);
            assert!(late.is_zero(), "{what}, {mended_after:?}:\n{table}");
            assert!(before <= 12 && after <= 1, "{what}:\n{table}");
        }
    }
    eprintln!("mistake, mended after, first token after that, mints before + after\n{table}");
}

#[test]
fn each_mistake_is_taken_for_what_it_is() {
    for mistake in mistakes() {
        if mistake.mend == Mend::Start {
            continue;
        }
        let mut world = World::running(1);
        world.otherwise = mistake.answer.clone();
        world.run(3 * SECOND);
        let record = &world.cell.as_ref().unwrap().0;
        let outcome = record.ledger[0].outcome;
        let Reply::Http(status, _, body) = mistake.answer else {
            panic!("every one is an answer");
        };
        let expected = match (body.contains("slug"), status) {
            (true, 503) => Outcome::Lost,
            (true, _) => Outcome::Refused,
            (false, _) => Outcome::Intermediary,
        };
        assert_eq!(outcome, expected, "{}", mistake.what);
        assert_eq!(
            record.parked.is_some(),
            expected == Outcome::Refused,
            "{}",
            mistake.what
        );
    }
}

#[test]
fn a_key_with_a_byte_order_mark_is_no_key_and_one_with_quotes_is() {
    let folder = tempfile::tempdir().unwrap();
    let (id, key) = (folder.path().join("id"), folder.path().join("key"));
    fs::write(&id, "the-id\n").unwrap();
    let files = KeyFiles {
        pairs: vec![(id, key.clone())],
    };
    fs::write(&key, "\u{feff}the-key\n").unwrap();
    assert!(files.read().is_err(), "so nothing starts");
    fs::write(&key, "\"the-key\"\n").unwrap();
    assert!(files.read().is_ok(), "what it is good for the issuer says");
}

#[test]
fn a_wrong_first_key_costs_no_more_than_a_moment() {
    let mut world = World::new(the_real_account(), 1);
    world.daemons[0].keys = ("two".into(), 2);
    world.start(0);
    world.replies = [Reply::Refused(true)].into();
    world.run(SECOND);
    assert!(world.vends(0).is_some());
    assert_eq!(world.keys_used, [0, 1]);
}

#[test]
fn no_start_and_no_mend_makes_more_than_three_requests_at_once() {
    let mut world = World::running(1);
    world.otherwise = Reply::Broken;
    // A process that is started again each second, now and then with other settings.
    for round in 0..190 {
        if round % 19 == 0 {
            world.daemons[0].keys = (format!("set-{round}"), 1);
        }
        world.kill(0);
        world.start(0);
        world.run(SECOND);
    }
    assert_eq!(world.arrivals.len(), 3);
}

#[test]
fn nothing_is_retried_at_once_under_wait_or_in_memory() {
    for absent in [Absent::Wait, Absent::Forgetful] {
        let mut world = World::new(the_real_account(), 1);
        world.absent = absent;
        world.otherwise = Reply::Broken;
        world.start(0);
        world.run(190 * SECOND);
        world.set_keys(0, "mended", 1);
        world.run(SECOND);
        assert_eq!(world.arrivals.len(), 0, "{absent:?}");
    }
    let mut world = World::new(the_real_account(), 1);
    world.absent = Absent::Forgetful;
    world.otherwise = Reply::Broken;
    world.start(0);
    world.run(199 * SECOND);
    world.set_keys(0, "mended", 1);
    world.run(190 * SECOND);
    assert_eq!(world.arrivals.len(), 1);
}

#[test]
fn a_front_that_answers_for_hours_takes_half_of_the_slots_and_a_mend_finds_one() {
    let mut world = World::running(1);
    world.otherwise = Reply::Http(502, None, HTML);
    world.run(5 * 60 * MINUTE);
    let period = the_real_account().budget.period();
    for (first, last) in world.arrivals.iter().zip(&world.arrivals[5..]) {
        assert!(*last + SECOND >= *first + period);
    }
    // In the long run one every 396 s.
    let row = world.arrivals.len();
    assert!((44..=46).contains(&row), "{row}");
    let gaps = world.arrivals[8..].windows(2).map(|it| it[1] - it[0]);
    assert!(gaps.max().unwrap() < 400 * SECOND);
    // An operator need not wait for the share once the back-off is over, and other settings wait
    // for neither.
    while world.arrivals.len() == row {
        world.run(SECOND);
    }
    world.run(280 * SECOND);
    let row = row + 1;
    assert_eq!(world.refresh(0), RefreshOutcome::Refreshing);
    world.run(SECOND);
    assert_eq!(world.arrivals.len(), row + 1);
    world.otherwise = Reply::Token;
    world.set_keys(0, "mended", 1);
    world.run(SECOND);
    assert!(world.vends(0).is_some());
}

#[test]
fn a_start_that_finds_itself_parked_says_so_once_and_never_shows_no_trouble() {
    let mut world = World::running(1);
    world.otherwise = Reply::Refused(false);
    world.run(MINUTE);
    world.kill(0);
    world.start(0);
    world.run(5 * MINUTE);
    let still = |note: &&Note| matches!(note, Note::StillParked { .. });
    let told: Vec<&Note> = world.life(0).notes.iter().filter(still).collect();
    let Note::StillParked { reason, next } = told[0] else {
        panic!("it is of that kind");
    };
    assert_eq!((told.len(), reason.as_str()), (1, "as the script says"));
    let now = world.stamp(0);
    let left = next.duration_since(now.wall).as_secs();
    assert!((9 * 60..10 * 60).contains(&left), "{left:?}");
    let status = world.life(0).keeper.status(now, "file");
    let trouble = status.trouble.expect("the record says why");
    assert_eq!(
        (trouble.code, trouble.detail),
        ("refused", "as the script says".into())
    );
    assert!(status.parked.is_some());
    // A start that is not parked says nothing of it.
    world.kill(0);
    world.daemons[0].keys = ("mended".into(), 1);
    world.start(0);
    world.run(SECOND);
    assert!(!world.life(0).notes.iter().any(|note| still(&note)));
}

#[test]
fn a_start_after_failures_says_that_there_were_some_until_it_has_made_its_own() {
    let mut world = World::running(1);
    world.otherwise = Reply::Http(502, None, HTML);
    world.run(MINUTE);
    world.kill(0);
    world.start(0);
    world.run(SECOND);
    let still = Note::StillFailing("intermediary");
    let told = |world: &World| {
        world
            .life(0)
            .notes
            .iter()
            .filter(|it| **it == still)
            .count()
    };
    assert_eq!(told(&world), 1, "{:?}", world.life(0).notes);
    let status = world.life(0).keeper.status(world.stamp(0), "file");
    assert_eq!(status.trouble.unwrap().code, "intermediary");
    // Its own attempt says more.
    world.run(5 * MINUTE);
    assert_eq!(told(&world), 1);
    let status = world.life(0).keeper.status(world.stamp(0), "file");
    assert!(!status.trouble.unwrap().detail.contains("did not make"));
    // With a live token there is nothing to say.
    world.otherwise = Reply::Token;
    world.run(20 * MINUTE);
    assert!(world.vends(0).is_some());
    world.kill(0);
    world.start(0);
    world.run(SECOND);
    assert_eq!(told(&world), 0);
}

#[test]
fn a_fleet_in_the_middle_of_a_key_change_does_not_take_turns() {
    let mut world = World::new(the_real_account(), 2);
    world.daemons[0].keys = ("old".into(), 1);
    world.daemons[1].keys = ("new".into(), 1);
    world.start(0);
    world.otherwise = Reply::Refused(true);
    world.run(2 * SECOND);
    world.otherwise = Reply::Token;
    world.start(1);
    world.run(2 * SECOND);
    assert_eq!(world.arrivals.len(), 2);
    // The old set is refused whenever it is tried, and the new one never.
    for _ in 0..24 * 60 {
        let old = world.life(0).keeper.attempt_under_way();
        world.otherwise = if old {
            Reply::Refused(true)
        } else {
            Reply::Token
        };
        world.run(MINUTE / 60);
        assert!(world.vends(1).is_some());
    }
    assert_eq!(world.arrivals.len(), 2, "24 minutes with a fresh token");
}

#[test]
fn a_record_of_a_misspelt_account_is_taken_over_and_one_that_gave_a_token_is_not() {
    let mut world = World::new(the_real_account(), 2);
    world.account = "acount".into();
    world.otherwise = Reply::Refused(false);
    world.start(0);
    world.run(SECOND);
    world.account = "account".into();
    world.daemons[1].keys = ("mended".into(), 1);
    world.otherwise = Reply::Token;
    world.start(1);
    world.run(SECOND);
    let record = &world.cell.as_ref().unwrap().0;
    assert_eq!(
        (&record.account[..], record.ledger.len()),
        ("account", 2),
        "no slot is forgotten"
    );
    let adopted = Note::Adopted {
        from: "acount".into(),
    };
    assert!(world.life(1).notes.contains(&adopted));
    // The daemon that still runs with the wrong account takes nothing back.
    world.run(10 * MINUTE);
    assert!(world.vends(1).is_some() && world.vends(0).is_none());
    assert_eq!(world.cell.as_ref().unwrap().0.account, "account");
    world.kill(0);
    world.account = "acount".into();
    world.start(0);
    world.run(MINUTE);
    assert!(world.vends(0).is_none());
    assert_eq!(world.cell.as_ref().unwrap().0.account, "account");
}
