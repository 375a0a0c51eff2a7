//! When the next attempt may be made: each thing that stands in its way, alone.

use super::world::{SECOND, the_real_account};
use crate::budget::Class;
use crate::clock::{BootId, Stamp};
use crate::keeper::schedule::{Plan, Situation, WaitingFor, Wishes};
use crate::record::{
    Absent, Claim, Outcome, Parked, Record, RefusedSet, Rules, Slot, Trigger, Writer,
};
use crate::token::{Generation, Secret, Token};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

const NONE: Wishes = Wishes {
    reported: None,
    operator: false,
};
const OPERATOR: Wishes = Wishes {
    reported: None,
    operator: true,
};
const REPORTED: Wishes = Wishes {
    reported: Some(Generation(5)),
    operator: false,
};

fn at(second: i64) -> Stamp {
    Stamp {
        wall: Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs(second),
        boot: Duration::from_secs(u64::try_from(50_000 + second).unwrap()),
    }
}

/// A known past, and a token from 0 to an hour.
struct Case {
    record: Record,
    token: Option<Token>,
    rules: Rules,
}

fn case() -> Case {
    let rules = the_real_account();
    let writer = Writer {
        holder: "me".into(),
        boot_id: BootId::new("here"),
        at: at(0),
    };
    let mut record = Record::new("account", "l".into(), Absent::New, writer, &rules);
    record.probation = None;
    record.keys.fingerprint = "keys".into();
    let token = Token {
        generation: Generation(5),
        secret: Secret::new("x".into()),
        issued_at: at(0),
        refresh_at: at(27 * 60),
        expires_at: at(60 * 60),
    };
    Case {
        record,
        token: Some(token),
        rules,
    }
}

impl Case {
    fn slot(&mut self, class: Class, outcome: Outcome, reserved: i64) {
        self.record.ledger.push(Slot {
            attempt: Generation(self.record.ledger.len() as u64),
            holder: "me".into(),
            class,
            trigger: Trigger::Schedule,
            reserved_at: at(reserved),
            frees_at: at(reserved + 33 * 60),
            outcome,
            lengths: None,
            carried: false,
            newer: Default::default(),
        });
    }

    fn plan(&self, second: i64, wishes: Wishes) -> Plan {
        self.with_keys("keys", second, wishes)
    }

    fn with_keys(&self, keys: &str, second: i64, wishes: Wishes) -> Plan {
        let situation = Situation {
            record: &self.record,
            token: self.token.as_ref(),
            keys,
            rules: &self.rules,
            now: at(second),
        };
        situation.plan(wishes)
    }

    fn is(&self, second: i64, wishes: Wishes, expected: (i64, Class, Trigger, WaitingFor)) {
        let plan = self.plan(second, wishes);
        let found = (plan.at, plan.class, plan.trigger, plan.waiting_for);
        let (at_second, class, trigger, waiting_for) = expected;
        assert_eq!(found, (at(at_second).boot, class, trigger, waiting_for));
    }
}

use Class::{Reported, Routine, Urgent};
use Trigger::{Expiry, FirstToken, Operator, Report, Schedule};

#[test]
fn a_refresh_is_due_at_its_moment_and_urgent_below_the_mark() {
    let case = case();
    case.is(0, NONE, (27 * 60, Routine, Schedule, WaitingFor::Schedule));
    case.is(
        27 * 60 - 1,
        NONE,
        (27 * 60, Routine, Schedule, WaitingFor::Schedule),
    );
    case.is(
        27 * 60,
        NONE,
        (27 * 60, Routine, Schedule, WaitingFor::Nothing),
    );
    case.is(
        3270 - 1,
        NONE,
        (3269, Routine, Schedule, WaitingFor::Nothing),
    );
    case.is(3270, NONE, (3270, Urgent, Expiry, WaitingFor::Nothing));
    case.is(9000, NONE, (9000, Urgent, Expiry, WaitingFor::Nothing));
}

#[test]
fn the_first_token_is_urgent() {
    let mut case = case();
    case.token = None;
    case.is(3, NONE, (3, Urgent, FirstToken, WaitingFor::Nothing));
}

#[test]
fn every_class_waits_for_the_back_off_the_urgent_one_too() {
    let mut case = case();
    case.record.not_before = Some(at(5000));
    for (second, wishes) in [
        (27 * 60, NONE),
        (4000, NONE),
        (600, OPERATOR),
        (600, REPORTED),
    ] {
        let plan = case.plan(second, wishes);
        assert_eq!(
            (plan.at, plan.waiting_for),
            (at(5000).boot, WaitingFor::Backoff),
            "{plan:?}"
        );
    }
}

#[test]
fn every_class_waits_for_the_claim_of_another() {
    let mut case = case();
    case.record.claim = Some(Claim {
        attempt: Generation(9),
        holder: "other".into(),
        until: at(5000),
        newer: Default::default(),
    });
    for (second, wishes) in [
        (27 * 60, NONE),
        (4000, NONE),
        (600, OPERATOR),
        (600, REPORTED),
    ] {
        let plan = case.plan(second, wishes);
        assert_eq!(
            (plan.at, plan.waiting_for),
            (at(5000).boot, WaitingFor::Claim),
            "{plan:?}"
        );
    }
}

#[test]
fn every_class_waits_for_the_pace_of_an_unknown_past() {
    let mut case = case();
    case.record.probation = Some(crate::record::Probation {
        until: None,
        period: None,
        at_once: 0,
        newer: Default::default(),
    });
    case.slot(Urgent, Outcome::Minted, 3900);
    let paced = at(3900).boot + case.rules.budget.blind_pace();
    for wishes in [NONE, OPERATOR] {
        let plan = case.plan(4000, wishes);
        assert_eq!(
            (plan.at, plan.waiting_for),
            (paced, WaitingFor::Probation),
            "{plan:?}"
        );
    }
}

#[test]
fn every_class_waits_for_a_slot_of_its_own_kind() {
    let mut case = case();
    for reserved in 0..7 {
        case.slot(Urgent, Outcome::Minted, 100 + reserved);
    }
    // Seven of ten are taken: routine waits for the first to free, and expiry does not.
    case.is(
        27 * 60,
        NONE,
        (100 + 33 * 60, Routine, Schedule, WaitingFor::Budget),
    );
    case.is(
        1500,
        OPERATOR,
        (100 + 33 * 60, Routine, Operator, WaitingFor::Budget),
    );
    case.is(
        1500,
        REPORTED,
        (1500, Reported, Report, WaitingFor::Nothing),
    );
    case.slot(Urgent, Outcome::Minted, 107);
    case.is(
        1500,
        REPORTED,
        (100 + 33 * 60, Reported, Report, WaitingFor::Budget),
    );
    case.token.as_mut().unwrap().expires_at = at(1600);
    case.is(1500, NONE, (1500, Urgent, Expiry, WaitingFor::Nothing));
    case.slot(Urgent, Outcome::Minted, 201);
    case.slot(Urgent, Outcome::Minted, 202);
    case.is(
        1500,
        NONE,
        (100 + 33 * 60, Urgent, Expiry, WaitingFor::Budget),
    );
}

#[test]
fn each_kind_keeps_its_own_distance() {
    let mut case = case();
    case.slot(Reported, Outcome::Lost, 1600);
    case.is(27 * 60, NONE, (1720, Routine, Schedule, WaitingFor::Pace));
    case.is(1650, OPERATOR, (1720, Routine, Operator, WaitingFor::Pace));
    case.is(1610, REPORTED, (1720, Routine, Schedule, WaitingFor::Pace));
    case.token.as_mut().unwrap().refresh_at = at(3000);
    case.is(1610, REPORTED, (1900, Reported, Report, WaitingFor::Pace));
    case.record.ledger[0].outcome = Outcome::Refused;
    case.is(
        1650,
        REPORTED,
        (1650, Reported, Report, WaitingFor::Nothing),
    );
    case.token.as_mut().unwrap().refresh_at = at(1000);
    case.is(1650, NONE, (1650, Routine, Schedule, WaitingFor::Nothing));
}

#[test]
fn parked_keys_wait_and_changed_keys_and_operators_do_not() {
    let mut case = case();
    case.slot(Routine, Outcome::Refused, 1000);
    case.record.parked = Some(Parked {
        since: at(1000),
        retry_at: at(1900),
        reason: "no".into(),
        newer: Default::default(),
    });
    case.is(
        1010,
        NONE,
        (1900, Routine, Trigger::Parked, WaitingFor::Parked),
    );
    case.is(
        1010,
        REPORTED,
        (1900, Routine, Trigger::Parked, WaitingFor::Parked),
    );
    case.is(1010, OPERATOR, (1120, Routine, Operator, WaitingFor::Pace));
    case.token = None;
    // Never urgent while parked, and with other keys at once but for a short distance.
    case.is(
        1010,
        NONE,
        (1900, Routine, Trigger::Parked, WaitingFor::Parked),
    );
    let plan = case.with_keys("others", 1010, NONE);
    assert_eq!(
        (plan.at, plan.class, plan.trigger),
        (at(1010).boot, Urgent, FirstToken)
    );
    // Nobody but a set that was not tried yet passes a wait that the issuer asked for.
    case.record.not_before = Some(at(1500));
    assert_eq!(case.with_keys("others", 1010, NONE).at, at(1010).boot);
    assert_eq!(case.plan(1010, OPERATOR).at, at(1500).boot);
}

#[test]
fn a_set_that_was_not_tried_passes_what_went_wrong_with_others_and_nothing_else() {
    let mut case = case();
    case.token = None;
    case.slot(Urgent, Outcome::Lost, 1000);
    case.record.not_before = Some(at(1900));
    case.record.tried = vec!["keys".into()];
    case.record.probation = Some(crate::record::Probation {
        until: Some(at(1980)),
        period: None,
        at_once: 1,
        newer: Default::default(),
    });
    let new = |case: &Case| {
        let plan = case.with_keys("new", 1010, NONE);
        (plan.at, plan.waiting_for)
    };
    let until = |second: i64, waiting_for| (at(second).boot, waiting_for);
    assert_eq!(new(&case), until(1010, WaitingFor::Nothing));
    case.is(1010, NONE, (1900, Urgent, FirstToken, WaitingFor::Backoff));
    // Nothing is left that may be made at once.
    case.record.probation.as_mut().unwrap().at_once = 0;
    assert_eq!(new(&case).1, WaitingFor::Probation);
    case.record.probation = None;
    case.record.tried.push("new".into());
    assert_eq!(new(&case), until(1900, WaitingFor::Backoff), "once");
    case.record.tried.pop();
    case.record.hold_until = Some(at(1300));
    assert_eq!(new(&case), until(1300, WaitingFor::Backoff));
    case.record.hold_until = None;
    // Its own last request did not leave.
    case.record.keys.fingerprint = "new".into();
    case.record.keys.retry_at = Some(at(1015));
    assert_eq!(new(&case), until(1015, WaitingFor::Backoff));
    case.record.keys.fingerprint = "keys".into();
    assert_eq!(new(&case), until(1010, WaitingFor::Nothing));
    case.rules.spacing = 60 * SECOND;
    assert_eq!(new(&case), until(1060, WaitingFor::Pace));
    case.rules.spacing = Duration::ZERO;
    case.record.claim = Some(Claim {
        attempt: Generation(9),
        holder: "other".into(),
        until: at(1022),
        newer: Default::default(),
    });
    assert_eq!(new(&case), until(1022, WaitingFor::Claim));
    for reserved in 1..10 {
        case.slot(Urgent, Outcome::Lost, 1000 + reserved);
    }
    assert_eq!(new(&case), until(1000 + 33 * 60, WaitingFor::Budget));
}

#[test]
fn a_run_of_intermediaries_takes_half_of_the_slots_and_leaves_the_rest_to_a_mend() {
    let mut case = case();
    case.token = None;
    case.record.tried = vec!["keys".into()];
    for reserved in 0..5 {
        case.is(1010, NONE, (1010, Urgent, FirstToken, WaitingFor::Nothing));
        case.slot(Urgent, Outcome::Intermediary, 1000 + reserved);
    }
    let first_frees = 1000 + 33 * 60;
    let waits = (first_frees, Urgent, FirstToken, WaitingFor::Intermediary);
    case.is(1010, NONE, waits);
    // A set that was not tried, an operator and an answer of another kind go on.
    assert_eq!(case.with_keys("new", 1010, NONE).at, at(1010).boot);
    let asked = case.plan(1300, OPERATOR);
    assert_eq!((asked.at, asked.trigger), (at(1300).boot, Operator));
    case.slot(Urgent, Outcome::Lost, 1005);
    case.is(1010, NONE, (1010, Urgent, FirstToken, WaitingFor::Nothing));
    // The mend was none.
    case.slot(Urgent, Outcome::Intermediary, 1006);
    let plan = case.plan(1010, NONE);
    let second_frees = at(1001 + 33 * 60).boot;
    assert_eq!(
        (plan.at, plan.waiting_for),
        (second_frees, WaitingFor::Intermediary)
    );
}

#[test]
fn a_refused_set_is_tried_rarely_and_not_while_the_token_of_another_is_fresh() {
    let mut case = case();
    case.slot(Routine, Outcome::Minted, 0);
    case.record.refused = vec![RefusedSet {
        fingerprint: "old".into(),
        since: at(0),
        retry_at: at(900),
        reason: "no".into(),
        cursor: 0,
        newer: Default::default(),
    }];
    let old = |case: &Case, second| {
        let plan = case.with_keys("old", second, NONE);
        (plan.at, plan.trigger, plan.waiting_for)
    };
    let due = at(27 * 60).boot;
    assert_eq!(
        old(&case, 100),
        (due, Trigger::Parked, WaitingFor::Schedule)
    );
    case.record.refused[0].retry_at = at(2000);
    let rare = (at(2000).boot, Trigger::Parked, WaitingFor::Parked);
    assert_eq!(old(&case, 1700), rare);
    case.is(1700, NONE, (1700, Routine, Schedule, WaitingFor::Nothing));
}

#[test]
fn a_report_of_another_generation_is_no_wish() {
    let case = case();
    let other = Wishes {
        reported: Some(Generation(4)),
        operator: false,
    };
    assert_eq!(case.plan(600, other), case.plan(600, NONE));
    case.is(600, REPORTED, (600, Reported, Report, WaitingFor::Nothing));
}

#[test]
fn where_a_new_token_ends_the_old_one_a_lost_answer_is_urgent() {
    let mut case = case();
    case.rules.revokes_previous = true;
    case.is(
        600,
        NONE,
        (27 * 60, Routine, Schedule, WaitingFor::Schedule),
    );
    case.record.streak.lost = 1;
    case.is(600, NONE, (600, Urgent, Expiry, WaitingFor::Nothing));
}

#[test]
fn a_plan_never_lies_in_the_past_and_waits_for_the_longest() {
    let mut case = case();
    case.record.not_before = Some(at(10));
    case.slot(Routine, Outcome::Minted, 1690);
    let plan = case.plan(1700, NONE);
    assert_eq!(
        (plan.at, plan.waiting_for),
        (at(1810).boot, WaitingFor::Pace)
    );
    assert!(case.plan(20_000, NONE).at == at(20_000).boot);
}
