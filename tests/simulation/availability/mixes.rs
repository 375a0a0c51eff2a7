//! The fault mixes, as an operator would call them, and why each that stays behind the clairvoyant does.

use std::time::Duration;

use bearerd::record::Absent;

use super::rules;
use super::script::Script;
use crate::clocks::{HOUR, MINUTE, Nanos, SECOND};
use crate::faults::Kind;
use crate::setting::{Setting, Store};
use crate::upstream::RetryAfter;

/// What goes wrong, and what must be reached at least.
pub struct Case {
    pub name: &'static str,
    pub world: fn(&mut Setting),
    pub episode: fn(&mut Script),
    /// In hundredths of the clairvoyant's figure.
    pub floor: f64,
    /// What is not known, or not allowed, where it is below 99.9.
    pub why: &'static str,
}

const fn case(
    name: &'static str,
    world: fn(&mut Setting),
    episode: fn(&mut Script),
    floor: f64,
    why: &'static str,
) -> Case {
    Case {
        name,
        world,
        episode,
        floor,
        why,
    }
}

const OUTAGE: &str = "nobody tells of an outage beforehand: our token is up to 27 min old when it begins, the clairvoyant's is new";
const LOOKS: &str = "as in any outage; and only a request tells that it is over, each costs a slot, and ten slots in 33 min are a look every 198 s";
const THROTTLED: &str = "as in any outage; and nobody says how long: the issuer may count what it refuses, so it is asked every 7.5 min at most";
const STRANGERS: &str = "as in any outage; and nobody tells what strangers spend: each look is counted too, and keeps the window full for longer";
const PARKED: &str =
    "as in any outage; and refused keys that do not change are tried every 15 min only";
const REVOKED: &str = "nobody tells of a revocation but the first caller whom the token fails, seconds later, and of an outage's end but a try, every 15 s";
const REGISTER: &str = "law 2: no slot can be made durable, so nothing is minted";
const FORGETFUL: &str =
    "what was spent before the start is unknown: each process waits 198 s before it mints (law 1)";
const WAIT: &str = "asked for: with an unknown past nothing is minted for a whole period, which is all that counts here";
const NO_CLOCK: &str = "how long the machine was down is unknown, so its token counts as expired (law 4) until the outage ends";
const EVERYTHING: &str = "all of these; the longest: false reports have used up the three that law 8 allows, a wall clock is set in an outage";

/// Sets a rebooting machine's wall clock 30 days back.
const FAR_BACK: u64 = 4;

pub const CASES: &[Case] = &[
    case(
        "upstream unreachable, 5 min",
        three_nodes,
        |it| it.then(Kind::Unreachable, 5 * MINUTE),
        99.9,
        "",
    ),
    case(
        "upstream unreachable, 30 min",
        three_nodes,
        |it| it.then(Kind::Unreachable, 30 * MINUTE),
        99.9,
        "",
    ),
    case(
        "upstream unreachable, 2 h",
        three_machines,
        |it| it.then(Kind::Unreachable, 2 * HOUR),
        83.0,
        OUTAGE,
    ),
    case(
        "upstream unreachable, 2 h, with a lead of 50 min",
        lead_of_50_minutes,
        |it| it.then(Kind::Unreachable, 2 * HOUR),
        93.0,
        OUTAGE,
    ),
    case(
        "answers lost, 5 min",
        usual,
        |it| it.then(Kind::AnswerLost, 5 * MINUTE),
        99.9,
        "",
    ),
    case(
        "answers lost, 30 min",
        three_nodes,
        |it| it.then(Kind::AnswerLost, 30 * MINUTE),
        99.9,
        "",
    ),
    case(
        "answers lost, 2 h",
        three_machines,
        |it| it.then(Kind::AnswerLost, 2 * HOUR),
        82.0,
        LOOKS,
    ),
    case(
        "5xx, 30 min",
        three_nodes,
        |it| it.then(Kind::ServerError, 30 * MINUTE),
        99.9,
        "",
    ),
    case(
        "5xx, 2 h",
        three_nodes,
        |it| it.then(Kind::ServerError, 2 * HOUR),
        80.5,
        LOOKS,
    ),
    case("upstream flapping, 2 h", three_nodes, flapping, 99.8, LOOKS),
    case(
        "mints counted late and unheard, 30 min",
        usual,
        |it| it.then(Kind::CountedLate, 30 * MINUTE),
        99.9,
        "",
    ),
    case(
        "429 for all, true Retry-After, 30 min",
        three_nodes,
        |it| it.throttled(30 * MINUTE, RetryAfter::True),
        99.9,
        "",
    ),
    case(
        "429 for all, no Retry-After, 30 min",
        three_nodes,
        |it| it.throttled(30 * MINUTE, RetryAfter::Never),
        99.9,
        "",
    ),
    case(
        "429 for all, no Retry-After, 1 h",
        three_nodes,
        |it| it.throttled(HOUR, RetryAfter::Never),
        79.5,
        THROTTLED,
    ),
    case(
        "429 for all, no Retry-After, 5 min, token revoked",
        three_nodes,
        |it| {
            it.fault(Kind::Revoked, MINUTE);
            it.throttled(5 * MINUTE, RetryAfter::Never);
        },
        92.0,
        THROTTLED,
    ),
    case(
        "strangers spend all, true Retry-After, 1 h",
        three_nodes,
        |it| it.strangers(2 * MINUTE, HOUR, RetryAfter::True),
        85.5,
        STRANGERS,
    ),
    case(
        "strangers spend all, no Retry-After, 1 h",
        three_nodes,
        |it| it.strangers(2 * MINUTE, HOUR, RetryAfter::Never),
        80.5,
        STRANGERS,
    ),
    case(
        "strangers spend two thirds, 2 h",
        three_nodes,
        |it| it.strangers(30 * MINUTE / 7, 2 * HOUR, RetryAfter::Never),
        99.9,
        "",
    ),
    case(
        "one of two keys refused, 2 h",
        usual,
        |it| it.then(Kind::KeyRefused, 2 * HOUR),
        99.9,
        "",
    ),
    case(
        "all keys refused for 1 h, then replaced",
        three_nodes,
        |it| {
            it.then(Kind::AllRefused, HOUR);
            it.new_keys();
        },
        83.0,
        OUTAGE,
    ),
    case(
        "all keys refused for 1 h, then accepted",
        three_nodes,
        |it| it.then(Kind::AllRefused, HOUR),
        76.0,
        PARKED,
    ),
    case(
        "revoked early, callers report",
        three_nodes,
        |it| it.fault(Kind::Revoked, MINUTE),
        99.8,
        REVOKED,
    ),
    case(
        "revoked in an outage of 10 min",
        three_nodes,
        |it| {
            it.fault(Kind::Unreachable, 10 * MINUTE);
            it.at += MINUTE;
            it.fault(Kind::Revoked, MINUTE);
        },
        99.7,
        REVOKED,
    ),
    case(
        "register out of reach, 10 min",
        three_machines,
        |it| it.then(Kind::RegisterDown, 10 * MINUTE),
        99.9,
        "",
    ),
    case(
        "register out of reach, 2 h",
        three_machines,
        |it| it.then(Kind::RegisterDown, 2 * HOUR),
        49.5,
        REGISTER,
    ),
    case(
        "one node cut off from the register, 30 min",
        three_machines,
        |it| it.then(Kind::Partition, 30 * MINUTE),
        99.9,
        "",
    ),
    case(
        "crash loop, record in a file",
        usual,
        |it| it.then(Kind::CrashLoop, 10 * MINUTE),
        99.9,
        "",
    ),
    case(
        "crash loop, record in memory",
        in_memory,
        |it| it.then(Kind::CrashLoop, 10 * MINUTE),
        76.0,
        FORGETFUL,
    ),
    case(
        "crash loop while answers are lost, 30 min",
        three_nodes,
        |it| {
            it.fault(Kind::CrashLoop, 30 * MINUTE);
            it.then(Kind::AnswerLost, 30 * MINUTE);
        },
        99.9,
        "",
    ),
    case(
        "record lost, held by three",
        three_nodes,
        |it| it.then(Kind::Lost, MINUTE),
        99.9,
        "",
    ),
    case(
        "record lost with its machine",
        usual,
        lost_with_its_machine,
        99.9,
        "",
    ),
    case(
        "record lost with its machine, absent = \"wait\"",
        |it| it.absent = Absent::Wait,
        lost_with_its_machine,
        0.0,
        WAIT,
    ),
    case(
        "wall clock set by up to 60 h",
        three_nodes,
        |it| {
            let kinds = [Kind::StepForward, Kind::StepBack];
            let kind = kinds[it.dice.usize(0..2)];
            it.then(kind, MINUTE);
        },
        99.9,
        "",
    ),
    case(
        "reboot, some with a wall clock far back",
        three_nodes,
        |it| it.then(Kind::Reboot, 5 * MINUTE),
        99.9,
        "",
    ),
    case(
        "reboot with a wall clock far back, in an outage of 10 min",
        three_nodes,
        |it| {
            it.fault(Kind::Unreachable, 10 * MINUTE);
            it.at += 5 * MINUTE;
            it.fault_with(Kind::Reboot, MINUTE, FAR_BACK);
        },
        89.0,
        NO_CLOCK,
    ),
    case(
        "machine suspended, 2 h",
        usual,
        |it| it.then(Kind::Suspend, 2 * HOUR),
        99.9,
        "",
    ),
    case(
        "process frozen, 2 h",
        usual,
        |it| it.then(Kind::Freeze, 2 * HOUR),
        99.9,
        "",
    ),
    case(
        "everything at once, 6 h",
        three_nodes,
        everything,
        98.5,
        EVERYTHING,
    ),
];

fn usual(_: &mut Setting) {}

fn three_nodes(setting: &mut Setting) {
    setting.nodes = 3;
}

fn three_machines(setting: &mut Setting) {
    (setting.nodes, setting.store) = (3, Store::Remote);
}

fn lead_of_50_minutes(setting: &mut Setting) {
    three_machines(setting);
    setting.rules = rules(Some(Duration::from_secs(50 * 60)));
}

fn in_memory(setting: &mut Setting) {
    (setting.store, setting.absent) = (Store::Memory, Absent::Forgetful);
}

fn lost_with_its_machine(it: &mut Script) {
    it.fault(Kind::PowerLoss, MINUTE);
    it.then(Kind::Lost, MINUTE);
}

/// Down for up to 9 minutes, up for up to 2, in three ways.
fn flapping(it: &mut Script) {
    for _ in 0..20 {
        let bad = [Kind::Unreachable, Kind::AnswerLost, Kind::ServerError];
        let kind = bad[it.dice.usize(0..3)];
        let length = it.dice.u64(MINUTE..9 * MINUTE);
        it.then(kind, length);
        it.at += it.dice.u64(20 * SECOND..2 * MINUTE);
    }
}

/// Thirty faults of any kind in six hours. Tokens that come old, or again, are left out: they are good answers to nobody.
fn everything(it: &mut Script) {
    let begin = it.at;
    let odd = [Kind::Repeated, Kind::Aged, Kind::Drift, Kind::Torn];
    let mut at: Vec<Nanos> = (0..30)
        .map(|_| begin + it.dice.u64(0..6 * HOUR - 30 * MINUTE))
        .collect();
    at.sort_unstable();
    for at in at {
        it.at = at;
        let kind = loop {
            let kind = Kind::ALL[it.dice.usize(0..Kind::ALL.len())];
            if !odd.contains(&kind) && kind != Kind::Partition {
                break kind;
            }
        };
        let length = (SECOND as f64 * 1800_f64.powf(it.dice.f64())) as Nanos;
        it.fault(kind, length);
    }
    it.at = begin + 6 * HOUR;
}
