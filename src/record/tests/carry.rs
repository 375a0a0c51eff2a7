//! Records on other boot clocks, under clocks that disagree, and under other lengths.

use super::*;

fn id(name: &str) -> BootId {
    BootId::new(name)
}

/// A moment on a machine whose boot clock is ahead of the first one's by so many seconds, and its wall clock of the truth.
fn moment(second: u64, boot_ahead: i64, wall_ahead: i64) -> Stamp {
    let at = at(second);
    Stamp {
        wall: at.wall + SignedDuration::from_secs(wall_ahead),
        boot: Duration::from_secs(at.boot.as_secs().checked_add_signed(boot_ahead).unwrap()),
    }
}

/// The record as a process that starts at `now` reads it and writes it again.
fn started(record: &Record, boot_id: &BootId, now: Stamp, rules: &Rules) -> Record {
    let reader = Reader {
        holder: "another",
        boot_id,
        offsets: &[now.offset()],
    };
    let read = record.read_by(&reader, now, rules);
    let mut next = read.unwrap_or_else(|| record.clone());
    next = next.clamped(now, rules).unwrap_or(next);
    next.prune_carried();
    next.written = Writer {
        holder: "another".into(),
        boot_id: boot_id.clone(),
        at: now,
    };
    Record::parse(&next.to_text()).unwrap()
}

fn token_left(record: &Record, now: Stamp) -> u64 {
    let token = record.token.as_ref().unwrap();
    token.expires_at.left(now).as_secs()
}

fn slots_left(record: &Record, now: Stamp) -> Vec<u64> {
    let left = |slot: &Slot| slot.frees_at.boot.saturating_sub(now.boot).as_secs();
    record.ledger.iter().map(left).collect()
}

/// Slots that free at 1921 and 2180, a token until 3600, written at 210.
fn written() -> Record {
    Record {
        written: writer(210),
        ..lived()
    }
}

#[test]
fn starts_under_two_identities_in_turn_take_the_skew_once() {
    let rules = rules();
    let mut record = written();
    record.not_before = Some(at(900));
    record.parked = Some(Parked {
        since: at(100),
        retry_at: at(1000),
        reason: "no".into(),
        newer: BTreeMap::new(),
    });
    for start in 0..56 {
        let second = 220 + 10 * start;
        let (boot, ahead) = if start % 2 == 0 {
            ("day", 86_400)
        } else {
            ("here", 0)
        };
        let now = moment(second, ahead, 0);
        record = started(&record, &id(boot), now, &rules);
        assert_eq!(
            token_left(&record, now),
            3600 - second - 30,
            "start {start}"
        );
        // No slot counts for longer than a period from the moment it is carried.
        let slots = [1951 - second, (2210 - second).min(1980)];
        assert_eq!(slots_left(&record, now), slots);
        let wait = |at: Stamp| at.boot.saturating_sub(now.boot).as_secs();
        let parked = record.parked.as_ref().unwrap();
        assert!(wait(record.not_before.unwrap()) <= 930_u64.saturating_sub(second));
        assert!(wait(parked.retry_at) <= 1030_u64.saturating_sub(second));
        // It ends by the skew later, but is never longer than when it was written.
        assert_eq!(
            wait(parked.retry_at) + second,
            (1010 + 10 * start).min(1030)
        );
    }
}

#[test]
fn machines_whose_wall_clocks_disagree_take_the_skew_once_however_often_they_write_in_turn() {
    let rules = rules();
    let mut record = written();
    for turn in 0..56 {
        let second = 220 + 10 * turn;
        let (machine, boot, wall) = match turn % 3 {
            0 => ("one", 86_400, 14),
            1 => ("another", 7_000, -6),
            _ => ("here", 0, 0),
        };
        let now = moment(second, boot, wall);
        record = started(&record, &id(machine), now, &rules);
        // The skew is taken off once, and no more than by what the reader's clock is off.
        let left = 3600 - second - 30;
        assert!(
            (left - 14..=left + 6).contains(&token_left(&record, now)),
            "turn {turn}"
        );
        let due = record.token.as_ref().unwrap().refresh_at.left(now);
        assert!(due.as_secs() >= 1620 - second - 30 - 14, "turn {turn}");
    }
}

#[test]
fn a_claim_that_starts_in_turn_renew_runs_out_all_the_same() {
    let (mut record, _) = begin(&written(), 500);
    record.written = writer(500);
    let rules = rules();
    for start in 0..8 {
        let (boot, ahead) = if start % 2 == 0 {
            ("day", 86_400)
        } else {
            ("here", 0)
        };
        let now = moment(505 + 10 * start, ahead, 0);
        record = started(&record, &id(boot), now, &rules);
        let until = record.claim.as_ref().unwrap().until;
        let left = until.boot.saturating_sub(now.boot).as_secs();
        // For the skew longer than 22 s from when it was first seen on another boot clock.
        assert_eq!(left, 52_u64.saturating_sub(10 * start).min(22));
    }
}

#[test]
fn a_wall_clock_that_differs_across_a_restart_costs_no_more_than_it_must() {
    // By how much the wall clock is ahead, what is left of the token, and of the slots.
    let rows: [(i64, u64, [u64; 2]); 8] = [
        (0, 3300, [1621, 1880]),
        (1, 3299, [1621, 1880]),
        (29, 3271, [1621, 1880]),
        // Further ahead than the skew: it may be right, and then the token is older.
        (31, 3239, [1621, 1880]),
        (5 * 3600, 0, [1621, 1880]),
        (-29, 3300, [1621, 1880]),
        // Further behind: the slots count for what it says more, and the token lives.
        (-31, 3300, [1682, 1941]),
        (-5 * 3600, 3300, [1980, 1980]),
    ];
    for (ahead, token, slots) in rows {
        let now = moment(300, 0, ahead);
        let read = started(&written(), &id("here"), now, &rules());
        assert_eq!(token_left(&read, now), token, "{ahead}");
        assert_eq!(slots_left(&read, now), slots, "{ahead}");
        // Once: what was written then is believed by the next start.
        let later = moment(310, 0, ahead);
        let again = started(&read, &id("here"), later, &rules());
        assert_eq!(token_left(&again, later), token.saturating_sub(10));
        assert_eq!(slots_left(&again, later), slots.map(|left| left - 10));
    }
}

#[test]
fn a_wall_clock_a_little_behind_is_told_by_the_wall_clock_alone() {
    let now = moment(300, 0, -60);
    // Written at 210, so that by the wall clock only half a minute went by.
    let read = started(&written(), &id("here"), now, &rules());
    assert_eq!(slots_left(&read, now), [1711, 1970]);
    assert_eq!(token_left(&read, now), 3300);
}

#[test]
fn another_boot_clock_under_the_same_name_frees_nothing_and_revives_nothing() {
    // As after a restored checkpoint: the kernel's files say nothing of it.
    let ahead = moment(300, 86_400, 0);
    let read = started(&written(), &id("here"), ahead, &rules());
    assert_eq!(slots_left(&read, ahead), [1921 - 300 + 30, 2180 - 300 + 30]);
    assert_eq!(
        token_left(&read, ahead),
        0,
        "one mint too many rather than a dead token"
    );
    let behind = moment(300, -40_000, 0);
    let read = started(&written(), &id("here"), behind, &rules());
    assert_eq!(slots_left(&read, behind), [1980, 1980]);
    assert_eq!(token_left(&read, behind), 3300 - 30);
    // A token that has been dead for three seconds.
    let behind = moment(3603, -40_000, 0);
    let read = started(&written(), &id("here"), behind, &rules());
    assert_eq!(token_left(&read, behind), 0);
}

#[test]
fn an_expiry_that_cannot_be_true_has_ended_and_each_clock_is_lowered_by_itself() {
    let rules = rules();
    let now = at(300);
    let absurd = now.boot + 2 * rules.lifetime;
    let mut record = written();
    let token = record.token.as_mut().unwrap();
    token.expires_at.boot = absurd;
    let clamped = record.clamped(now, &rules).unwrap();
    assert_eq!(token_left(&clamped, now), 0);
    // The wall clock alone was stepped back: the boot clock says how long it lives.
    let stepped = moment(300, 0, -5 * 3600);
    assert_eq!(written().clamped(stepped, &rules), None);
    assert_eq!(token_left(&written(), stepped), 3300);
    let mut record = written();
    let slot = &mut record.ledger[0].frees_at;
    (slot.boot, slot.wall) = (absurd, at(10).wall);
    let clamped = record.clamped(now, &rules).unwrap();
    let frees = clamped.ledger[0].frees_at;
    assert_eq!(
        (frees.boot, frees.wall),
        (at(300 + 33 * 60).boot, at(10).wall)
    );
}

#[test]
fn a_step_that_the_reader_has_seen_moves_nothing() {
    let now = moment(300, 0, -5 * 3600);
    for (offsets, moved) in [
        (vec![now.offset()], true),
        (vec![at(0).offset(), now.offset()], false),
    ] {
        let reader = Reader {
            holder: "another",
            boot_id: &id("here"),
            offsets: &offsets,
        };
        assert_eq!(written().read_by(&reader, now, &rules()).is_some(), moved);
    }
    let own = Reader {
        holder: "me",
        boot_id: &id("here"),
        offsets: &[now.offset()],
    };
    assert_eq!(
        written().read_by(&own, now, &rules()),
        None,
        "what it wrote itself"
    );
}

fn longer(window: Duration, in_flight: Duration) -> Rules {
    let mut wanted = Wanted::new(60 * MINUTE, window, NonZeroU32::new(10).unwrap());
    wanted.in_flight = Some(in_flight);
    wanted.lead = Some(40 * MINUTE);
    Rules::new(&wanted)
}

#[test]
fn longer_lengths_move_each_freeing_time_by_the_difference_and_shorter_ones_none() {
    let now = at(300);
    let before = [1621, 1880];
    let frees = |rules: &Rules| {
        let once = started(&written(), &id("here"), now, rules);
        let twice = started(&once, &id("here"), now, rules);
        assert_eq!(slots_left(&once, now), slots_left(&twice, now), "once");
        slots_left(&once, now)
    };
    assert_eq!(frees(&longer(30 * MINUTE, MINUTE)), before);
    // 15 minutes, and a fifteenth of them more margin.
    assert_eq!(
        frees(&longer(45 * MINUTE, MINUTE)),
        before.map(|left| left + 16 * 60)
    );
    assert_eq!(
        frees(&longer(30 * MINUTE, 3 * MINUTE)),
        before.map(|left| left + 120)
    );
    assert_eq!(frees(&longer(15 * MINUTE, MINUTE)), before);
    // A longer window outweighs a shorter time in flight where the issuer has counted already.
    assert_eq!(
        frees(&longer(31 * MINUTE, SECOND)),
        before.map(|left| left + 64)
    );
}

#[test]
fn two_daemons_with_other_lengths_do_not_push_slots_ahead_of_them() {
    let (short, long) = (longer(30 * MINUTE, MINUTE), longer(45 * MINUTE, MINUTE));
    let mut record = written();
    for turn in 0..10 {
        let now = at(300 + turn);
        record = started(
            &record,
            &id("here"),
            now,
            if turn % 2 == 0 { &long } else { &short },
        );
        let (turn, more) = (turn, 16 * 60);
        assert_eq!(
            slots_left(&record, now),
            [1621 + more - turn, 1880 + more - turn]
        );
    }
    // What the one with the shorter window takes counts long enough for the other.
    let (mut record, _) = record.begin(
        &reservation(Class::Urgent, Trigger::Expiry),
        at(400),
        &short,
    );
    record.written = writer(400);
    let read = started(&record, &id("here"), at(400), &long);
    assert_eq!(slots_left(&read, at(400))[2], 49 * 60);
}

#[test]
fn an_unknown_past_lasts_longer_under_a_longer_window() {
    let rules = rules();
    for absent in [Absent::New, Absent::Wait] {
        let record = Record::new("account", "l".into(), absent, writer(0), &rules);
        let now = at(100);
        let read = started(&record, &id("here"), now, &longer(45 * MINUTE, MINUTE));
        let until = read.probation.as_ref().unwrap().until.unwrap();
        assert_eq!(until.boot - at(0).boot, 49 * MINUTE);
        assert_eq!(read.not_before, (absent == Absent::Wait).then_some(until));
        // A record of format 1.0 does not say how long its past was to be unknown.
        let mut old = record.clone();
        old.probation.as_mut().unwrap().period = None;
        let read = started(&old, &id("here"), now, &longer(45 * MINUTE, MINUTE));
        let until = read.probation.unwrap().until.unwrap();
        assert!(until.boot - at(0).boot >= 49 * MINUTE);
    }
}

#[test]
fn a_token_lives_no_longer_than_the_lifetime_in_force() {
    let mut wanted = Wanted::new(30 * MINUTE, 10 * MINUTE, NonZeroU32::new(10).unwrap());
    wanted.skew = Some(30 * SECOND);
    let shorter = Rules::new(&wanted);
    for boot in ["here", "there"] {
        let read = started(&written(), &id(boot), at(300), &shorter);
        assert!(token_left(&read, at(300)) <= 1500);
    }
}
