use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::thread;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::clock::Stamp;
use crate::config::Sources;
use crate::token::Generation;
use crate::vend::status::{
    AttemptStatus, BudgetStatus, FreeStatus, NextStatus, ParkedStatus, RegisterStatus, SlotStatus,
    Status, TokenStatus, Trouble,
};

fn at(minutes: i64) -> Timestamp {
    let noon: Timestamp = "2026-07-01T12:00:00Z".parse().unwrap();
    noon + SignedDuration::from_mins(minutes)
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
            at: Stamp {
                wall: at(27),
                boot: Duration::ZERO,
            },
            class: "routine",
            trigger: "schedule",
            waiting_for: "schedule",
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
account   acct-1 at 2026-07-01 12:20:00Z, bearerd 0.1.0
token     live for 40m, until 13:00:00Z (generation 42, 3fa9c1d2)
          [#############-----R---------------------] refresh in 7m, at 12:27:00Z
budget    2 of 10 slots taken; free now: 5 routine, 3 reported, 8 urgent
          [#][#][ ][ ][ ][ ][ ][ ][ ][ ]
          [#] frees in 11m      at 12:31:00Z  routine for schedule, lost
          [#] frees in 13m      at 12:33:00Z  routine for schedule, minted
next      routine mint for schedule in 7m, at 12:27:00Z; it waits for its time
record    file, up
attempts  began      took     key  outcome    class     for
          12:00:00Z  0.24s    1    minted     urgent    first token
          11:58:00Z  0.24s    1    lost       urgent    first token
                     no whole answer within 10s
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
    assert!(lines[2] == "TROUBLE   refused: 401", "{plain}");
    assert!(
        lines[3].starts_with("RECORD    file does not answer"),
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
        width: 100,
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
