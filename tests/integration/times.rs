//! What is said of the time after the wall clock was set: by every answer, over every door, to the second.
//!
//! The daemon runs in this process, by a clock whose wall time the test sets; its listeners and callers are real. After each step
//! the wall clock is the machine's own, so that real callers and commands read what is shown as they would. Everything that can
//! be asked for is asked for, and everything in it that looks like a time must be one of these hours: a time that somebody adds
//! and forgets to convert is found here, without being named.

mod found;
mod inside;

use std::time::Duration;

use bearerd::client::{Client, Pace};
use bearerd::clock::{Clock, Stamp};
use bearerd::sandbox::{Fault, Script};
use bearerd::vend::Status;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::harness::Scale;
use found::times_in;
use inside::{Inside, Place, SetClock, Told};

/// How far the wall clock is set: a hardware clock in local time, and one that has lost its battery.
const STEPS: [i64; 4] = [5 * HOUR, 20 * 60, -20 * 60, -5 * HOUR];
const HOUR: i64 = 3600;

/// Everything that is shown lies within this, as tokens and slots of [`Scale::still`] do.
const HORIZON: SignedDuration = SignedDuration::from_hours(2);

/// The start of 1970 and a bit.
fn since_1970() -> i64 {
    5_000 - bearerd::clock::wall().as_second()
}

/// The wall time of this moment by the boot clock alone, in seconds.
fn seconds_at(at: Stamp, now: Stamp) -> f64 {
    let seconds = now.wall.as_duration().as_secs_f64();
    seconds + at.boot.as_secs_f64() - now.boot.as_secs_f64()
}

fn seconds(text: &Value) -> f64 {
    let text = text.as_str().unwrap_or_else(|| panic!("no time: {text}"));
    text.parse::<Timestamp>()
        .unwrap()
        .as_duration()
        .as_secs_f64()
}

/// Every time in what the daemon says is of these hours, and every date is that of the answer.
#[track_caller]
fn assert_of_these_hours(places: &[Place], scene: &str) {
    let mut wrong = Vec::new();
    let mut count = 0;
    for place in places {
        for (at, excerpt) in times_in(&place.text, place.answered) {
            count += 1;
            let dated = excerpt.starts_with("date: ");
            let second = SignedDuration::from_secs(1);
            let right = match dated {
                true => at >= place.asked - second && at <= place.answered,
                false => at.duration_since(place.answered).abs() <= HORIZON,
            };
            if !right {
                wrong.push(format!("{}: {excerpt}", place.name));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{scene}: {} of {count} times are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(count > 30, "{scene}: only {count} times were found");
}

/// Each of these is the truth within a second. All are told, however many are wrong.
#[track_caller]
fn assert_true(rows: &[(&str, f64, f64)], scene: &str) {
    let wrong = rows
        .iter()
        .filter(|(_, shown, truth)| (shown - truth).abs() > 1.0);
    let wrong: Vec<String> = wrong
        .map(|(place, shown, truth)| format!("{place} is off by {:.0} s", shown - truth))
        .collect();
    assert!(
        wrong.is_empty(),
        "{scene}: {} of {}:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}

/// A live token: every place that names one of its times, and what the clocks say.
async fn token_rows(daemon: &Inside) -> Vec<(&'static str, f64, f64)> {
    let vend = daemon.vend();
    let now = daemon.clock.now();
    let live = vend.current(now).unwrap();
    let token = &live.token;
    let boot = |at| seconds_at(at, now);
    // The end is the earlier one of the two clocks'.
    let end = |at: Stamp| boot(at).min(at.wall.as_duration().as_secs_f64());
    let (issued, expires) = (boot(token.issued_at), end(token.expires_at));

    let wall = |at: Timestamp| at.as_duration().as_secs_f64();
    // What changes while it is asked for is true if it was so at any moment meanwhile.
    let left = |shown: f64, [asked, answered]: [Timestamp; 2]| {
        shown.clamp(expires - wall(answered) - 1.0, expires - wall(asked))
    };
    let http = daemon.http("/v1/token").await;
    let json = http.json();
    let http_left = json["expires_in"].as_f64().unwrap();
    let place = daemon.admin("/status").await;
    let status = place.json();
    let status_at = seconds(&status["at"]);
    let metrics = daemon.admin("/metrics").await.text;
    let metric = |name: &str| -> f64 {
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap().parse().unwrap()
    };
    let ready = daemon.admin("/readyz?verbose").await;
    let ready: Vec<f64> = times_in(&ready.text, ready.answered)
        .iter()
        .filter(|(_, excerpt)| !excerpt.starts_with("date: "))
        .map(|(at, _)| at.as_duration().as_secs_f64())
        .collect();
    let held = vend.status();
    let slot = held.budget.slots.last().unwrap();
    let next = held.next.as_ref().unwrap().at;
    let shown = &status["token"];
    let last = status["budget"]["slots"]
        .as_array()
        .unwrap()
        .last()
        .unwrap();
    let mut rows = vec![
        (
            "HTTP expires_in",
            http_left,
            left(http_left, [http.asked, http.answered]),
        ),
        ("HTTP expires_at", seconds(&json["expires_at"]), expires),
        ("HTTP issued_at", seconds(&json["issued_at"]), issued),
        (
            "/status at",
            status_at,
            status_at.clamp(wall(place.asked), wall(place.answered)),
        ),
        ("/status issued_at", seconds(&shown["issued_at"]), issued),
        (
            "/status refresh_at",
            seconds(&shown["refresh_at"]),
            end(token.refresh_at),
        ),
        ("/status expires_at", seconds(&shown["expires_at"]), expires),
        (
            "/status reserved_at",
            seconds(&last["reserved_at"]),
            boot(slot.reserved_at),
        ),
        (
            "/status frees_at",
            seconds(&last["frees_at"]),
            boot(slot.frees_at),
        ),
        ("/status next", seconds(&status["next"]["at"]), boot(next)),
        (
            "/status began_at",
            seconds(&status["attempts"][0]["began_at"]),
            issued,
        ),
        ("/readyz live until", ready[0], expires),
        ("/readyz next attempt", ready[1], boot(next)),
        (
            "metrics expiry",
            metric("bearerd_token_expiry_timestamp_seconds"),
            expires,
        ),
        (
            "metrics last success",
            metric("bearerd_refresh_last_success_timestamp_seconds"),
            issued,
        ),
        (
            "metrics next",
            metric("bearerd_refresh_next_timestamp_seconds"),
            boot(next),
        ),
        (
            "metrics next free",
            metric("bearerd_budget_next_free_timestamp_seconds"),
            boot(held.budget.slots[0].frees_at),
        ),
        (
            // In tens of seconds: it is put together from three times that were cut to seconds.
            "metrics start",
            metric("process_start_time_seconds") / 10.0,
            daemon.started() / 10.0,
        ),
        ("systemd STATUS", daemon.notified(expires).await, expires),
    ];
    for ([expires_in, expires_at, issued_at], got, within) in daemon.grpc_tokens().await {
        let shown = f64::from(got.expires_in);
        rows.push((expires_in, shown, left(shown, within)));
        rows.push((expires_at, got.expires_at(), expires));
        rows.push((issued_at, got.issued_at(), issued));
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_token_is_told_by_the_clock_as_it_is_now() {
    for ahead in STEPS {
        let world = Inside::world(Scale::still()).await;
        let clock = SetClock::ahead(ahead);
        let daemon = Inside::start(&world, &clock).await;
        let client = Client::connect_with(
            &daemon.http_address().parse().unwrap(),
            Pace::default(),
            clock.clone(),
        )
        .unwrap();
        client.ready(crate::harness::PATIENCE).await.unwrap();
        let first = daemon.first_token().await.generation();
        // The next attempt is known once the end of the last one is written.
        daemon.until(|status| status.next.is_some()).await;
        let before = token_rows(&daemon).await;
        assert_true(&before, "before any step");
        assert_of_these_hours(&daemon.everything().await, "before any step");

        daemon.set_ahead(0).await;
        let scene = format!("the wall clock was {ahead} s ahead and was set right");
        // By a wall clock that was set forward beyond its end the token has ended, and a new one is
        // minted when the distance after an unknown past allows.
        if ahead == -5 * HOUR {
            clock.pass(Duration::from_secs(240));
        }
        let token = daemon.first_token().await;
        daemon.until(|status| status.next.is_some()).await;
        assert_eq!(token.generation() > first, ahead == -5 * HOUR, "{scene}");
        let rows = token_rows(&daemon).await;
        assert_true(&rows, &scene);
        // The client holds what it got before the step, and the first of both clocks ends it there.
        if let Ok(held) = client.current() {
            let now = clock.now();
            let end = now.plus(held.expires_at().left(now)).wall;
            let truth = vended_end(&daemon, now);
            assert!(
                end <= truth + SignedDuration::from_secs(1),
                "{scene}: {end} {truth}"
            );
        }
        let mut everything = daemon.everything().await;
        everything.extend(daemon.commands(&world).await);
        // These change something, and so they come last.
        everything.extend(daemon.changes().await);
        everything.push(daemon.audit_since_the_step());
        assert_of_these_hours(&everything, &scene);
        daemon.stop().await;
        world.finish();
    }
}

fn vended_end(daemon: &Inside, now: Stamp) -> Timestamp {
    let live = daemon.vend().current(now).unwrap();
    now.plus(live.token.expires_at.left(now)).wall
}

/// Who has no token is told in words why, and when to come again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn details_name_no_time_of_another_clock() {
    for ahead in [since_1970(), -5 * HOUR, 5 * HOUR] {
        let world = Inside::world(Scale::still()).await;
        world
            .sandbox
            .script(Script::new().always(Fault::status(401)));
        let clock = SetClock::ahead(ahead);
        let daemon = Inside::start(&world, &clock).await;
        daemon.until(|status| status.parked.is_some()).await;
        daemon.set_ahead(0).await;
        let scene = format!("parked while the wall clock was {ahead} s ahead");
        let now = daemon.clock.now();
        let status = daemon.vend().status();
        let since = seconds_at(status.parked.as_ref().unwrap().since, now);
        let next = seconds_at(status.next.as_ref().unwrap().at, now);
        let Told {
            detail,
            retry_after,
        } = daemon.told().await;
        let shown = daemon.admin("/status").await.json();
        let rows = [
            ("HTTP detail, since", detail[0][0], since),
            ("HTTP detail, next attempt", detail[0][1], next),
            ("gRPC message, since", detail[1][0], since),
            ("gRPC message, next attempt", detail[1][1], next),
            ("/readyz, since", detail[2][0], since),
            ("/readyz, next attempt", detail[2][1], next),
            ("/refresh, until", detail[3][0], detail[3][0]),
            ("/status since", seconds(&shown["parked"]["since"]), since),
            (
                "/status began_at",
                seconds(&shown["attempts"][0]["began_at"]),
                since,
            ),
            (
                "Retry-After",
                retry_after[0] + now.wall.as_duration().as_secs_f64(),
                next + 0.5,
            ),
            (
                "RetryInfo",
                retry_after[1] + now.wall.as_duration().as_secs_f64(),
                next + 0.5,
            ),
        ];
        assert_true(&rows, &scene);
        let mut everything = daemon.everything().await;
        everything.extend(daemon.commands(&world).await);
        everything.extend(daemon.changes().await);
        everything.push(daemon.audit_since_the_step());
        assert_of_these_hours(&everything, &scene);
        daemon.stop().await;
        world.finish();
    }
}

/// A token that ended while the wall clock was wrong, in an outage: its end is in the past, and nobody calls it another time's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ended_token_has_ended_when_it_did() {
    for ahead in [5 * HOUR, -5 * HOUR] {
        let world = Inside::world(Scale::still()).await;
        let clock = SetClock::ahead(ahead);
        let daemon = Inside::start(&world, &clock).await;
        daemon.first_token().await;
        let token = daemon.vend().current(clock.now()).unwrap();
        world.sandbox.set_down(true);
        clock.pass(Duration::from_secs(HOUR as u64 + 600));
        daemon.until(|status| status.trouble.is_some()).await;
        daemon.set_ahead(0).await;
        let scene = format!("ended while the wall clock was {ahead} s ahead");
        let ready = daemon.admin("/readyz?verbose").await;
        let line = ready
            .text
            .lines()
            .find(|it| it.starts_with("token: "))
            .unwrap();
        let shown = times_in(line, ready.answered)[0].0;
        let truth = seconds_at(token.token.expires_at, daemon.clock.now());
        let rows = [(
            "/readyz, expired at",
            shown.as_duration().as_secs_f64(),
            truth,
        )];
        assert_true(&rows, &scene);
        assert_of_these_hours(&daemon.everything().await, &scene);
        daemon.stop().await;
        world.finish();
    }
}

/// What was before the boot has no time on the boot clock. It is told by its distance from what has, a step of the wall clock or not;
/// it was carried over with `clock.skew` to the safe side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_before_the_boot_is_told_after_a_step_too() {
    const SKEW: f64 = 31.0;
    for refused in [false, true] {
        let world = Inside::world(Scale::still()).await;
        if refused {
            world.sandbox.script(Script::new().then(Fault::status(401)));
        }
        let clock = SetClock::ahead(5 * HOUR);
        let daemon = Inside::start(&world, &clock).await;
        let known = |status: &Status| status.token.is_some() || status.parked.is_some();
        daemon.until(known).await;
        let before = clock.now().wall.as_duration().as_secs_f64() - 5.0 * HOUR as f64;
        daemon.stop().await;

        clock.pass(Duration::from_secs(600));
        clock.reboot(Duration::from_secs(60));
        let daemon = Inside::start(&world, &clock).await;
        daemon.until(known).await;
        daemon.set_ahead(0).await;
        let status = daemon.admin("/status").await.json();
        let slot = &status["budget"]["slots"][0];
        let of_its_kind = match refused {
            true => ("since", seconds(&status["parked"]["since"]), before),
            false => ("issued_at", seconds(&status["token"]["issued_at"]), before),
        };
        let reserved = ("reserved_at", seconds(&slot["reserved_at"]), before);
        let rows = [of_its_kind, reserved]
            .map(|(place, shown, truth)| (place, shown / SKEW, truth / SKEW));
        assert_true(&rows, "before the boot, in units of the skew");
        let mut everything = daemon.everything().await;
        // This process is older than the boot that was made up.
        everything.retain(|it| !it.name.contains("/metrics"));
        assert_of_these_hours(&everything, "after another boot");
        daemon.stop().await;
        world.finish();
    }
}

/// The date goes on, on every door, at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_date_goes_on_after_a_step_back() {
    let world = Inside::world(Scale::still()).await;
    let clock = SetClock::ahead(5 * HOUR);
    let daemon = Inside::start(&world, &clock).await;
    daemon.first_token().await;
    for ahead in [5 * HOUR, 0, -5 * HOUR, 0] {
        clock.set_ahead(ahead);
        for _ in 0..3 {
            let places = daemon.dates().await;
            assert_eq!(places.len(), 4);
            let mut off = Vec::new();
            for place in places {
                let dates = times_in(&place.text, place.answered);
                let [(date, _)] = dates[..] else {
                    panic!("{}: not one date in {}", place.name, place.text);
                };
                let second = SignedDuration::from_secs(1);
                if date < place.asked - second || date > place.answered {
                    off.push((place.name, date.duration_since(place.answered)));
                }
            }
            assert!(off.is_empty(), "{ahead} s ahead: {off:?}");
            clock.pass(Duration::from_secs(1));
        }
    }
    daemon.stop().await;
    world.finish();
}

/// What the proto tells callers to do: to hold a token until either of its fields says so. One goes by `expires_at` on the wall
/// clock that it shares with the daemon, one by `expires_in` on the boot clock, across the step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_caller_that_holds_to_either_field_spends_no_dead_token() {
    let world = Inside::world(Scale::brisk()).await;
    let clock = SetClock::ahead(5 * HOUR);
    let daemon = Inside::start(&world, &clock).await;
    daemon.first_token().await;
    let mut by_seconds = held_by_seconds(&daemon).await;
    clock.set_ahead(0);
    let mut by_wall = daemon.grpc_token().await;
    let (mut calls, mut dead, mut tokens) = (0, [0, 0], 1);
    while calls < 120 {
        if clock.now().wall.as_duration().as_secs_f64() >= by_wall.expires_at() {
            by_wall = daemon.grpc_token().await;
            tokens += 1;
        }
        if clock.now().boot >= by_seconds.1 {
            by_seconds = held_by_seconds(&daemon).await;
        }
        let spent = [&by_wall.access_token, &by_seconds.0.access_token]
            .map(|token| world.sandbox.spend(token).status() != 200);
        // Whoever was interrupted between the look at the clock and the call knows it now.
        let now = clock.now();
        let late = [
            now.wall.as_duration().as_secs_f64() >= by_wall.expires_at(),
            now.boot >= by_seconds.1,
        ];
        for kind in 0..2 {
            dead[kind] += u32::from(spent[kind] && !late[kind]);
        }
        calls += 1;
        tokio::time::sleep(Duration::from_millis(75)).await;
    }
    assert_eq!(
        dead,
        [0, 0],
        "of {calls} calls each, by expires_at and by expires_in"
    );
    assert!(tokens >= 2, "nobody had to hold a token to its end");
    daemon.stop().await;
    world.finish();
}

/// A token, and the boot time until which its `expires_in` holds, counted from before the call.
async fn held_by_seconds(daemon: &Inside) -> (inside::Got, Duration) {
    let asked = daemon.clock.now().boot;
    let got = daemon.grpc_token().await;
    let end = asked + Duration::from_secs(got.expires_in.into());
    (got, end)
}

/// Whoever adds a time to a message of the proto adds it above, too.
#[test]
fn the_proto_has_no_times_but_those_that_are_looked_at() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let proto = format!("{folder}/proto/bearerd/v1/token_service.proto");
    let proto = std::fs::read_to_string(proto).unwrap();
    let times = proto
        .lines()
        .filter(|line| line.contains("google.protobuf.Timestamp "));
    assert_eq!(times.count(), 2);
}
