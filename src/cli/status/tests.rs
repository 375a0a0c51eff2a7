use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::thread;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::super::Size;
use super::super::tests::page;
use super::*;
use crate::clock::Stamp;
use crate::config::Sources;
use crate::token::Generation;
use crate::vend::status::{
    AttemptStatus, BudgetStatus, FreeStatus, NextStatus, ParkedStatus, RefreshStatus,
    RegisterStatus, SlotStatus, Status, TokenStatus, Trouble, UnknownStatus,
};

fn at(minutes: i64) -> Stamp {
    let noon: Timestamp = "2026-07-01T12:00:00Z".parse().unwrap();
    Stamp {
        wall: noon + SignedDuration::from_mins(minutes),
        boot: Duration::ZERO,
    }
}

/// A daemon twenty minutes into a token's life, with one lost attempt behind it.
fn status() -> Status {
    let slot = |attempt, outcome, minutes| SlotStatus {
        attempt: Generation(attempt),
        class: "routine",
        trigger: "schedule",
        outcome,
        reserved_at: at(minutes),
        frees_at: at(minutes + 33),
    };
    let attempt = |attempt, outcome, minutes, detail: Option<&str>| AttemptStatus {
        attempt: Generation(attempt),
        class: "urgent",
        trigger: "first_token",
        key: 1,
        began_at: at(minutes),
        duration: Duration::from_millis(240),
        outcome,
        detail: detail.map(str::to_owned),
    };
    Status {
        version: "0.1.0",
        account: "acct-1".into(),
        at: Some(at(20)),
        token: Some(TokenStatus {
            generation: Generation(42),
            fingerprint: "3fa9c1d2".into(),
            issued_at: at(0),
            refresh_at: at(27),
            expires_at: at(60),
            suspect: false,
        }),
        budget: BudgetStatus {
            limit: 10,
            reserve: 3,
            window: Duration::from_secs(1800),
            period: Duration::from_secs(1980),
            free: FreeStatus {
                routine: 5,
                reported: 3,
                urgent: 8,
            },
            slots: vec![slot(41, "lost", -2), slot(42, "minted", 0)],
        },
        next: Some(NextStatus {
            at: at(27),
            class: "routine",
            trigger: "schedule",
            waiting_for: "schedule",
        }),
        refresh: Some(RefreshStatus {
            at: Some(at(20)),
            waiting_for: "nothing",
        }),
        attempts: vec![
            attempt(42, "minted", 0, None),
            attempt(41, "lost", -2, Some("no whole answer within 10s")),
        ],
        register: RegisterStatus {
            kind: "file",
            up: true,
            ..RegisterStatus::default()
        },
        ..Status::default()
    }
}

fn document(status: &Status) -> Document {
    serde_json::from_str(&serde_json::to_string(status).unwrap()).unwrap()
}

#[test]
fn a_healthy_daemon_is_drawn() {
    let expected = "\
account   acct-1  bearerd 0.1.0, 2026-07-01 12:20:00Z
token     live for 40m, until 13:00:00Z  generation 42, 3fa9c1d2
          ░░░░░░░░░░░░░░░░██████▲███████████████████████████  refresh in 7m, at 12:27:00Z
budget    [×][●][ ][ ][ ][ ][ ][ ][ ][ ]  2 of 10 slots taken
          free now: 5 routine, 3 reported, 8 urgent
          the first frees in 11m, at 12:31:00Z; the last in 13m, at 12:33:00Z
record    file, up
refresh   by hand now
timeline  ○ 12:27:00Z  in 7m       routine, as scheduled, waits for its time
          ● 12:00:00Z  20m ago     minted     0.24s  urgent, first token, key 1
          × 11:58:00Z  22m ago     lost       0.24s  urgent, first token, key 1
                       no whole answer within 10s
          ○ next, ◐ under way, ● minted, ∅ not sent (its slot is free again), × spent without a
          token, ■ spent by hand, ▲ refresh due
          routine: scheduled or by hand, leaves the reserve; reported: a caller's token was refused,
          leaves two; urgent: no token or nearly none, takes all
";
    assert_eq!(render::render(&document(&status()), 100, false), expected);
}

#[test]
fn trouble_comes_first_and_no_line_is_too_long_or_moves_the_cursor() {
    let mut status = status();
    status.at = Some(at(70));
    status.parked = Some(ParkedStatus {
        since: at(10),
        reason: format!("\x1b[2Jkey\n{}", "x".repeat(200)),
    });
    status.trouble = Some(Trouble {
        code: "refused",
        detail: "401".into(),
    });
    status.register.up = false;
    status.register.detail = Some("disk full".into());
    status.budget.limit = 1000;
    let plain = render::render(&document(&status), 60, false);
    let lines: Vec<&str> = plain.lines().collect();
    assert!(lines[0].starts_with("PARKED    since 1h: "), "{plain}");
    assert_eq!(lines[3], "TROUBLE   refused: 401", "{plain}");
    assert!(
        lines[4].starts_with("RECORD    file does not answer"),
        "{plain}"
    );
    assert!(plain.contains("EXPIRED 10m ago, at 13:00:00Z"), "{plain}");
    assert!(
        plain.lines().all(|line| line.chars().count() <= 60),
        "{plain}"
    );
    assert!(!plain.contains('\x1b'), "{plain}");
    let coloured = render::render(&document(&status), 60, true);
    assert!(
        coloured.contains("\x1b[1;31mPARKED") && !coloured.contains("\x1b[2J"),
        "{coloured}"
    );
}

/// Every state that a daemon can be in, by name.
fn states() -> Vec<(&'static str, Status)> {
    let mut states = vec![("fresh", status())];
    let mut add = |name, change: &dyn Fn(&mut Status)| {
        let mut changed = status();
        change(&mut changed);
        states.push((name, changed));
    };
    add("due, and minting", &|it| {
        it.at = Some(at(28));
        it.minting = Some(Generation(43));
        let next = it.next.as_mut().unwrap();
        (next.at, next.waiting_for) = (at(28), "nothing");
        it.budget.slots.push(SlotStatus {
            outcome: "begun",
            ..it.budget.slots[1].clone()
        });
    });
    add("unknown history, and slots spent by hand", &|it| {
        it.at = Some(at(1));
        it.unknown_history = Some(UnknownStatus {
            until: Some(at(31)),
            pace: Duration::from_millis(197_100),
        });
        it.refresh = Some(RefreshStatus {
            at: Some(at(3)),
            waiting_for: "probation",
        });
        let by_hand = |attempt| SlotStatus {
            attempt: Generation(attempt),
            trigger: "operator",
            outcome: "by_hand",
            ..it.budget.slots[0].clone()
        };
        let both = [by_hand(43), by_hand(44)];
        it.budget.slots.extend(both);
    });
    add("failing for long", &|it| {
        it.at = Some(at(50));
        let failed = |minute: i64| AttemptStatus {
            outcome: "not_sent",
            began_at: at(minute),
            ..it.attempts[1].clone()
        };
        let failed: Vec<_> = (30..42).rev().map(failed).collect();
        it.attempts.splice(0..0, failed);
        it.trouble = Some(Trouble {
            code: "not_sent",
            detail: "the name does not resolve".into(),
        });
        it.refresh = Some(RefreshStatus {
            at: None,
            waiting_for: "register",
        });
    });
    add("suspect", &|it| {
        it.token.as_mut().unwrap().suspect = true;
        let next = it.next.as_mut().unwrap();
        next.at = at(23);
        (next.class, next.trigger, next.waiting_for) = ("reported", "report", "pace");
    });
    let throttled = |it: &mut Status| {
        it.trouble = Some(Trouble {
            code: "throttled",
            detail: "429 Too Many Requests, retry after 300 s".into(),
        });
        it.attempts[0].outcome = "throttled";
        it.attempts[0].detail = it.trouble.as_ref().map(|trouble| trouble.detail.clone());
        let next = it.next.as_mut().unwrap();
        (next.class, next.trigger, next.waiting_for) = ("urgent", "expiry", "budget");
        next.at = at(72);
        let slot = |minutes| SlotStatus {
            frees_at: at(72 + minutes),
            ..it.budget.slots[0].clone()
        };
        it.budget.slots = (0_i64..10).map(slot).collect();
        it.budget.free = FreeStatus::default();
    };
    add("expired, and the budget spent", &|it| {
        throttled(it);
        it.at = Some(at(70));
    });
    add("parked", &|it| {
        let reason = "401 Unauthorized: the key is not known here";
        it.parked = Some(ParkedStatus {
            since: at(10),
            reason: reason.into(),
        });
        it.trouble = Some(Trouble {
            code: "refused",
            detail: reason.into(),
        });
        it.attempts[0].outcome = "refused";
        let next = it.next.as_mut().unwrap();
        (next.trigger, next.waiting_for) = ("parked", "parked");
    });
    add("no token yet", &|it| {
        it.token = None;
        it.attempts.truncate(0);
        it.next.as_mut().unwrap().trigger = "first_token";
        it.next.as_mut().unwrap().waiting_for = "backoff";
    });
    add("the register down", &|it| {
        it.register.up = false;
        it.register.detail =
            Some("write /var/lib/bearerd/record.json.new: No space left on device".into());
        it.next.as_mut().unwrap().waiting_for = "register";
    });
    states
}

#[test]
fn every_state_is_drawn_as_it_was_agreed() {
    let mut drawn = String::new();
    for (name, status) in states() {
        for width in [80, 120] {
            let page = render::render(&document(&status), width, false);
            assert!(page.lines().all(|line| line.chars().count() <= width));
            drawn.push_str(&format!("== {name}, {width} columns\n{page}\n"));
            let coloured = render::render(&document(&status), width, true);
            assert_eq!(without_colour(&coloured), page, "{name}");
        }
    }
    if std::env::var_os("BLESS").is_some() {
        std::fs::write("tests/golden/status.txt", &drawn).unwrap();
        return;
    }
    let agreed = include_str!("../../../tests/golden/status.txt");
    assert!(drawn == agreed, "BLESS=1 writes it anew:\n{drawn}");
}

fn without_colour(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap().to_owned();
    for part in parts {
        plain.push_str(part.split_once('m').unwrap().1);
    }
    plain
}

#[test]
fn a_drawing_goes_over_the_last_one_line_by_line() {
    let size = |columns, rows| Size {
        columns,
        rows: Some(rows),
    };
    let mut screen = watch::Screen::default();
    let first = screen.frame("one\ntwo\n", size(80, 24));
    assert_eq!(first, "\x1b[?25lone\x1b[K\r\ntwo\x1b[K\r\n\x1b[J");
    let second = screen.frame("only\n", size(80, 24));
    assert_eq!(second, "\x1b[2A\ronly\x1b[K\r\n\x1b[J");
    let resized = screen.frame("1\n2\n3\n4\n", size(80, 3));
    assert_eq!(resized, "\x1b[2J\x1b[H1\x1b[K\r\n2\x1b[K\r\n\x1b[J");
}

#[test]
fn time_alone_changes_nothing_until_it_ends_a_token() {
    let (before, mut after) = (document(&status()), status());
    after.at = Some(at(25));
    assert!(before.says_the_same_as(&document(&after)));
    let parked = |microseconds| {
        let since = at(10).plus(Duration::from_micros(microseconds));
        let mut parked = status();
        parked.parked = Some(ParkedStatus {
            since,
            reason: String::new(),
        });
        document(&parked)
    };
    assert!(parked(0).says_the_same_as(&parked(3)));
    assert!(!parked(0).says_the_same_as(&parked(60_000_000)));
    after.at = Some(at(60));
    assert!(
        !before.says_the_same_as(&document(&after)),
        "it has expired"
    );
    for (name, changed) in states().into_iter().skip(1) {
        assert!(!before.says_the_same_as(&document(&changed)), "{name}");
    }
}

#[test]
fn a_daemon_without_anything_yet_is_drawn() {
    let document = document(&Status::default());
    let text = render::render(&document, 80, false);
    assert!(
        text.contains("token     none yet") && text.contains("nothing is planned"),
        "{text}"
    );
    assert!(!document.has_live_token());
}

/// Answers one request with this status, on a stream of any kind.
fn answer(mut stream: impl Read + Write, body: &str) -> String {
    let mut asked = Vec::new();
    let mut byte = [0];
    while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        asked.push(byte[0]);
    }
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    String::from_utf8(asked).unwrap()
}

fn ask(admin: &str, format: Form) -> (Exit, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = Console {
        out: &mut out,
        err: &mut err,
        out_colour: false,
        err_colour: false,
        out_terminal: false,
        size: page,
    };
    let exit = run(Some(admin), &Sources::default(), format, &mut console);
    (
        exit,
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

#[test]
fn a_daemon_is_asked_over_tcp_and_over_a_socket() {
    let body = serde_json::to_string(&status()).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    thread::scope(|scope| {
        let asked = scope.spawn(|| answer(tcp.accept().unwrap().0, &body));
        let (exit, out, err) = ask(&address, Form::Json);
        assert_eq!(
            (exit, out.trim_end(), err.as_str()),
            (Exit::Done, body.as_str(), "")
        );
        assert!(
            asked
                .join()
                .unwrap()
                .starts_with("GET /status HTTP/1.1\r\n")
        );
    });

    let mut expired = status();
    expired.at = Some(at(60));
    let body = serde_json::to_string(&expired).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let socket = UnixListener::bind(&path).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| answer(socket.accept().unwrap().0, &body));
        let (exit, out, _) = ask(&format!("unix:{}", path.display()), Form::Text);
        assert_eq!(exit, Exit::TryAgain);
        assert!(out.contains("EXPIRED"), "{out}");
    });
}

#[test]
fn nobody_there_is_try_again_and_somebody_else_is_a_failure() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    thread::scope(|scope| {
        scope.spawn(|| answer(tcp.accept().unwrap().0, "<html>"));
        assert_eq!(ask(&address, Form::Text).0, Exit::Failed);
    });
    drop(tcp);
    let (exit, out, err) = ask(&address, Form::Text);
    assert_eq!((exit, out.as_str()), (Exit::TryAgain, ""));
    assert!(
        err.contains(&format!("no daemon answers at {address} (")),
        "{err}"
    );
    assert_eq!(ask("nowhere", Form::Text).0, Exit::Usage);
}

#[test]
fn sockets_that_callers_do_not_find_are_told_first() {
    let mut document = document(&status());
    document.sockets_lost = vec!["unix:/run/bearerd/http.sock".into()];
    let drawn = render::render(&document, 100, false);
    assert!(
        drawn.starts_with("SOCKETS   callers do not find unix:/run/bearerd/http.sock: "),
        "{drawn}"
    );
}
