//! The state file: the text of a record, a zero byte, then a story of bytes that a keeper lives through with it.
//!
//! What was read is written the same, and is brought into the present without a panic; what a keeper makes of it can always be read
//! again, never vends a token beyond its end, and never spends more than the budget.

use std::num::NonZeroU32;
use std::time::Duration;

use bearerd::clock::{BootId, Stamp};
use bearerd::keeper::schedule::{Situation, Wishes};
use bearerd::record::{Reader, Record, Rules, Slot, Unreadable, Wanted};

use super::life::{BOOT, Life, SECOND};

/// No number of a record that can be read is higher.
const MOST_COUNTED: u64 = 1 << 53;

pub fn record(data: &[u8]) {
    let (text, story) = super::cut(data, b"\0");
    let found = match Record::parse(text) {
        Ok(found) => found,
        Err(Unreadable::Torn { why }) => {
            return assert!(why.len() < 80 && !why.contains('"'), "{why}");
        }
        Err(Unreadable::NewerFormat { found }) => return assert!(found.contains('.')),
    };
    assert_eq!(
        Record::parse(&found.to_text()).as_ref(),
        Ok(&found),
        "what was read is written the same"
    );
    // Nobody counts that far, and whoever did would be a step before what can be read.
    if found.generation.0.max(found.revision) > MOST_COUNTED - 1000 {
        return;
    }
    let mut story = story.iter().copied();
    let rules = rules(story.next().unwrap_or_default());
    let now = moment(&found, story.next().unwrap_or_default());
    is_brought_into_the_present(&found, now, &rules);
    let mut life = Life::begin(found, now, rules);
    for byte in story.by_ref().take(64) {
        life.go_on(byte & 15, byte >> 4);
    }
    life.ends();
}

/// Those of the real account, and some at the edges of what the settings allow.
fn rules(byte: u8) -> Rules {
    let month = 30 * 86_400 * SECOND;
    let ms = Duration::from_millis(1);
    let (lifetime, window, limit) = [
        (3600 * SECOND, 1800 * SECOND, 10),
        (60 * SECOND, 30 * SECOND, 10),
        (60 * SECOND, 30 * SECOND, 1),
        (month, month / 3, 2),
        (month, ms, 1000),
        (3 * ms, ms, 3),
    ][usize::from(byte & 7) % 6];
    let mut wanted = Wanted::new(lifetime, window, NonZeroU32::new(limit).unwrap());
    wanted.revokes_previous = byte & 8 != 0;
    wanted.lead = (byte & 16 != 0).then_some(lifetime / 2);
    wanted.skew = (byte & 32 != 0).then_some(month);
    Rules::new(&wanted)
}

/// Some time after the record was written, or before, by either clock; within what clocks of machines show.
fn moment(found: &Record, byte: u8) -> Stamp {
    let written = found.written.at;
    let later = [0, 1, 30, 600, 3600, 86_400, 86_400 * 365, 86_400 * 365 * 50]
        [usize::from(byte & 7)]
        * SECOND;
    let fixed = Stamp {
        wall: "2026-11-22T09:14:11.482Z".parse().unwrap(),
        boot: 100_000 * SECOND,
    };
    let now = match byte >> 3 & 3 {
        0 => written.plus(later),
        1 => Stamp {
            boot: 50 * SECOND,
            ..written.plus(later)
        },
        2 => Stamp {
            wall: written.minus(later).wall,
            ..written.plus(SECOND)
        },
        _ => fixed,
    };
    let years = fixed.plus(86_400 * 365 * 100 * SECOND);
    if now.boot > years.boot || now.wall > years.wall || now.wall.as_second() < 0 {
        fixed
    } else {
        now
    }
}

fn is_brought_into_the_present(found: &Record, now: Stamp, rules: &Rules) {
    let boot = BootId::new(BOOT);
    let moved = found.on_boot(&boot, now, rules);
    assert_eq!(moved.is_none(), found.written.boot_id == boot);
    let moved = moved.unwrap_or_else(|| found.clone());
    let clamped = moved.clamped(now, rules).unwrap_or_else(|| moved.clone());
    assert_eq!(clamped.clamped(now, rules), None, "once is enough");
    assert_eq!(Record::parse(&clamped.to_text()).as_ref(), Ok(&clamped));
    let left = |record: &Record| {
        record
            .token
            .as_ref()
            .map(|token| token.expires_at.left(now))
    };
    assert!(left(&clamped) <= Some(rules.lifetime));
    if found.written.boot_id != boot {
        let before = found
            .token
            .as_ref()
            .map(|token| token.expires_at.left(found.written.at));
        assert!(
            left(&clamped) <= before,
            "another boot makes no token live longer"
        );
    }
    is_read_by_another_process(found, &boot, now, rules);
    let merged = clamped.merged_with(&moved, now, rules);
    assert!(
        merged.generation > clamped.generation,
        "what was under way is late"
    );
    for slot in clamped
        .ledger
        .iter()
        .filter(|slot| slot.frees_at.boot > now.boot)
    {
        let kept = merged
            .ledger
            .iter()
            .filter(|it| it.attempt == slot.attempt && it.holder == slot.holder);
        assert!(
            kept.map(|it| it.frees_at.boot).max() >= Some(slot.frees_at.boot),
            "no slot is forgotten"
        );
    }
    for record in [
        &clamped,
        &merged.clamped(now, rules).unwrap_or(merged.clone()),
    ] {
        for token in [None, record.token.as_ref()] {
            is_planned(&Situation {
                record,
                token,
                keys: "keys-1",
                rules,
                now,
            });
        }
    }
}

/// On its own boot clock nothing frees sooner for a reader, and no token lives longer, whatever the wall clock says.
fn is_read_by_another_process(found: &Record, boot: &BootId, now: Stamp, rules: &Rules) {
    let reader = Reader {
        holder: "another",
        boot_id: boot,
        offsets: &[now.offset()],
    };
    let read = found.read_by(&reader, now, rules);
    let read = read.unwrap_or_else(|| found.clone());
    assert_eq!(Record::parse(&read.to_text()).as_ref(), Ok(&read));
    if found.written.boot_id != *boot {
        return;
    }
    let ends = |record: &Record| record.token.as_ref().map(|it| it.expires_at.left(now));
    assert!(ends(&read) <= ends(found));
    let counts = |slot: &&Slot| slot.frees_at.boot > now.boot.max(found.written.at.boot);
    for slot in found.ledger.iter().filter(counts) {
        let latest = now.boot + slot.lengths.map_or(rules.budget.period(), |it| it.period);
        let frees = slot.frees_at.boot.min(latest);
        let same = read.ledger.iter().filter(|it| it.is_of(slot));
        assert!(
            same.map(|it| it.frees_at.boot).max() >= Some(frees),
            "no slot frees sooner"
        );
    }
}

/// The next attempt is known, and not so far away that it would never come.
fn is_planned(situation: &Situation<'_>) {
    let Situation {
        record, rules, now, ..
    } = *situation;
    let furthest = now.boot + rules.lifetime + rules.budget.period() * 2 + rules.parked_retry;
    let reported = situation.token.map(|token| token.generation);
    for wishes in [
        Wishes::default(),
        Wishes {
            reported,
            operator: true,
        },
    ] {
        let plan = situation.plan(wishes);
        assert!(plan.at >= now.boot && plan.at <= furthest, "{plan:?}");
        assert!(
            rules.budget.free(&record.spent(), plan.class, plan.at) > 0,
            "{plan:?} has a slot"
        );
    }
}
