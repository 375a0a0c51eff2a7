use super::*;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use http_body_util::Full;
use proptest::prelude::*;
use tracing::Dispatch;
use tracing::dispatcher::with_default;

use crate::listener::testing::{HandClock, at};
use crate::telemetry::{Settings, subscriber};

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Said {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A log of a test's own, with this filter in its settings.
fn house(filter: &str) -> (Log, Dispatch, Said) {
    let said = Said::default();
    let writer = said.clone();
    let settings = Settings {
        filter: filter.parse().unwrap(),
        ..Settings::default()
    };
    let (subscriber, handle) = subscriber(&settings, false, move || writer.clone());
    (Log::new(handle), Dispatch::new(subscriber), said)
}

async fn put(log: &Log, query: Option<&str>, body: &'static [u8]) -> Result<(), String> {
    let clock = HandClock::new();
    let put = log.put(query, Full::new(Bytes::from_static(body)), &clock);
    let told = |failure: Failure| failure.problem().body().to_vec();
    put.await
        .map_err(|failure| String::from_utf8(told(failure)).unwrap())
}

fn level(log: &Log, now: Stamp) -> serde_json::Value {
    let body = log.shown(now).into_body().collect();
    let body = done_at_once(body).unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

/// What a future that never waits comes to.
fn done_at_once<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

#[tokio::test]
async fn a_change_is_in_force_at_once_and_is_shown() {
    let (log, dispatch, said) = house("info");
    let speak = |word| with_default(&dispatch, || tracing::debug!(target: "bearerd::x", word));
    assert_eq!(
        level(&log, at(0)),
        json!({"level": "info", "settings": "info", "until": null})
    );
    assert_eq!(log.changed(), None);
    speak("unheard");
    put(&log, None, b" debug, hyper=trace\n").await.unwrap();
    speak("heard");
    assert_eq!(
        level(&log, at(0)),
        json!({"level": "debug,hyper=trace", "settings": "info", "until": null})
    );
    assert_eq!(log.changed().as_deref(), Some("debug,hyper=trace"));
    assert!(said.text().contains("heard") && !said.text().contains("unheard"));
}

#[tokio::test]
async fn a_change_is_told_by_whichever_filter_shows_it() {
    for (before, after) in [("info", "off"), ("error", "debug")] {
        let (log, dispatch, said) = house(before);
        let change = Full::new(Bytes::from_static(after.as_bytes()));
        let clock = HandClock::new();
        with_default(&dispatch, || {
            done_at_once(log.put(Some("for=90s"), change, &clock))
        })
        .map_err(|failure| failure.problem())
        .unwrap();
        let text = said.text();
        assert_eq!(text.lines().count(), 1, "{before} {after}: {text}");
        for part in ["the log's filter was changed", after, "for_seconds=90"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

// Nothing here has a socket, so time may stand still until everybody waits for it.
#[tokio::test(start_paused = true)]
async fn a_change_for_a_while_ends_by_itself_by_the_boot_clock() {
    let (log, _dispatch, _said) = house("warn");
    let clock = HandClock::new();
    let drain = CancellationToken::new();
    let mut in_force = log.in_force.subscribe();
    let watching = async {
        put(&log, Some("for=10m"), b"trace").await.unwrap();
        assert_eq!(
            level(&log, at(30)),
            json!({"level": "trace", "settings": "warn", "until": "2027-01-15T08:10:00Z"})
        );
        in_force.mark_unchanged();
        // The runtime's own time goes by as nobody has anything to do, and it counts for nothing.
        sleep(Duration::from_secs(7200)).await;
        clock.set(at(599));
        sleep(TICK * 2).await;
        assert!(!in_force.has_changed().unwrap());
        // A wall clock that was set back does not make it longer.
        clock.set(Stamp {
            wall: at(0).wall,
            ..at(600)
        });
        in_force.changed().await.unwrap();
        assert_eq!(
            level(&log, at(600)),
            json!({"level": "warn", "settings": "warn", "until": null})
        );
        drain.cancel();
    };
    tokio::join!(log.keep(&clock, drain.clone()), watching);
}

#[tokio::test]
async fn a_later_change_without_end_is_not_ended_by_an_earlier_one() {
    let (log, _dispatch, _said) = house("info");
    put(&log, Some("for=1s"), b"trace").await.unwrap();
    put(&log, None, b"debug").await.unwrap();
    log.end(at(2));
    assert_eq!(level(&log, at(2))["level"], "debug");
}

#[tokio::test]
async fn what_is_no_filter_changes_nothing_and_is_not_repeated() {
    let (log, _dispatch, _said) = house("info");
    for body in [
        &b""[..],
        b"hush",
        b"debug,hush",
        b"debug,hyper=hush",
        b"debug,hush hush=info",
        b"{\"level\": \"debug\"}",
        b"\xff\xfe",
    ] {
        let problem = put(&log, None, body).await.unwrap_err();
        assert!(
            problem.contains("bad_filter") && problem.contains("hyper=debug"),
            "{problem}"
        );
        assert!(!problem.contains("hush"), "{problem}");
    }
    for query in [
        "for=",
        "for=hush",
        "for=10",
        "for=0s",
        "for=999ms",
        "for=25h",
        "for=99999999999999999999s",
        "four=10m",
        "for=10m&for=20m",
        "hush",
    ] {
        let problem = put(&log, Some(query), b"debug").await.unwrap_err();
        assert!(
            problem.contains("bad_filter") && problem.contains("?for=10m"),
            "{problem}"
        );
        assert!(!problem.contains("hush"), "{problem}");
    }
    let long: &'static [u8] = vec![b'a'; LONGEST + 1].leak();
    assert!(
        put(&log, None, long)
            .await
            .unwrap_err()
            .contains("too_long")
    );
    assert_eq!(log.changed(), None);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_not_waited_for() {
    struct Never;
    impl hyper::body::Body for Never {
        type Data = Bytes;
        type Error = std::convert::Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }
    let (log, _dispatch, _said) = house("info");
    let failure = log.put(None, Never, &HandClock::new()).await.unwrap_err();
    assert_eq!(failure.problem().word, "too_slow");
}

proptest! {
    #[test]
    fn whatever_is_taken_for_a_filter_is_shown_as_the_same_filter(body in "[a-z=,:_ -]{0,40}|(trace|info|off)(,[a-z:]{1,9}=(debug|warn)){0,4}") {
        match filter(body.as_bytes()) {
            Ok(taken) => prop_assert_eq!(taken.to_string().parse(), Ok(taken)),
            Err(failure) => prop_assert_eq!(failure.problem().word, "bad_filter"),
        }
    }

    #[test]
    fn no_bytes_sent_for_a_filter_or_a_while_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = filter(&bytes);
        let _ = a_while(&String::from_utf8_lossy(&bytes));
    }
}
