use jiff::Timestamp;
use proptest::prelude::*;

use super::Message::{self, *};
use super::*;
use crate::keeper::Note;
use crate::keeper::log::Next;
use crate::keeper::log::line::{Fields, Keys};
use crate::vend::status::Trouble;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const LEAD: Duration = Duration::from_secs(33 * 60);

/// The throttle with the token and the time that a test gives it.
#[derive(Default)]
struct Bench {
    throttle: LogThrottle,
    at: Duration,
    token: Option<(Generation, Stamp)>,
    lead: Duration,
    settling: bool,
    /// Every line so far, and when it came.
    lines: Vec<(Duration, Line)>,
    /// How many of them waited until the end.
    at_the_end: usize,
}

impl Bench {
    fn new() -> Self {
        Self {
            lead: LEAD,
            ..Self::default()
        }
    }

    fn now(&self) -> Stamp {
        let began = Stamp {
            wall: Timestamp::from_second(1_800_000_000).unwrap(),
            boot: Duration::from_secs(5_000),
        };
        began.plus(self.at)
    }

    fn outlook(&self) -> Outlook {
        Outlook {
            token: self.token,
            lead: self.lead,
            next: Next {
                at: self.now().plus(15 * SECOND),
                waiting_for: "backoff",
            },
            settling: self.settling,
        }
    }

    /// Moves on and takes a step; gives what was said in it.
    fn step(&mut self, length: Duration, events: Vec<Event>) -> Vec<Message> {
        self.at += length;
        let lines = self
            .throttle
            .step(self.now(), &self.outlook(), events.into_iter());
        let said = lines.iter().map(|line| line.message).collect();
        self.lines
            .extend(lines.into_iter().map(|line| (self.at, line)));
        said
    }

    fn notes(&mut self, length: Duration, notes: Vec<Note>) -> Vec<Message> {
        self.step(length, notes.into_iter().map(Event::Note).collect())
    }

    fn minted(&mut self, length: Duration, life: Duration) -> Vec<Message> {
        self.at += length;
        let generation = self.token.map_or(Generation(1), |(it, _)| it.next());
        self.token = Some((generation, self.now().plus(life)));
        self.notes(Duration::ZERO, vec![Note::Minted(generation)])
    }

    fn finish(&mut self) -> Vec<Message> {
        let lines = self.throttle.finish(self.now(), &self.outlook());
        let said = lines.iter().map(|line| line.message).collect();
        self.at_the_end += lines.len();
        self.lines
            .extend(lines.into_iter().map(|line| (self.at, line)));
        said
    }

    fn last(&self) -> &Line {
        &self.lines.last().unwrap().1
    }

    /// Steps once a second, as the driver does, and gives what was said and when.
    fn pass(&mut self, seconds: u64) -> Vec<(u64, Message)> {
        let mut said = Vec::new();
        for _ in 0..seconds {
            let now = self.step(SECOND, vec![]);
            said.extend(now.into_iter().map(|message| (self.at.as_secs(), message)));
        }
        said
    }
}

fn failed() -> Note {
    Note::Failed(Trouble {
        code: "lost",
        detail: "no answer".into(),
    })
}

#[test]
fn a_line_about_an_attempt_waits_until_the_next_one_is_known() {
    let mut bench = Bench::new();
    bench.minted(SECOND, 60 * MINUTE);
    bench.settling = true;
    assert_eq!(bench.notes(MINUTE, vec![failed()]), []);
    bench.settling = false;
    assert_eq!(bench.notes(SECOND, vec![]), [Failed]);
    let fields = format!("{:?}", Fields::new(bench.last(), bench.now()));
    for field in [
        r#"outcome: Some("lost")"#,
        r#"said: Some("no answer")"#,
        "failed: Some(1)",
        r#"since: Some("2027-01-15T08:01:01Z")"#,
        r#"token_until: Some("2027-01-15T09:00:01Z")"#,
        r#"token_left: Some("58m 59s")"#,
        r#"next: Some("2027-01-15T08:01:17Z")"#,
        r#"next_in: Some("15s")"#,
        r#"waiting_for: Some("backoff")"#,
    ] {
        assert!(fields.contains(field), "{field} is not in {fields}");
    }
}

#[test]
fn a_start_without_a_token_says_so_after_its_grace() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.notes(Duration::ZERO, vec![Note::NewRecord, failed()]),
        [Failed, NewRecord]
    );
    let grace = START_GRACE.as_secs();
    assert_eq!(bench.pass(grace + 5), [(grace, NoToken)]);
    assert_eq!(bench.pass(50), [(60, GoesOn)]);
    // Both places of the minute are taken, and what is over is told once there is one.
    bench.at = Duration::from_secs(65);
    assert_eq!(bench.minted(SECOND, 60 * MINUTE), []);
    assert_eq!(bench.pass(10), [(70, Recovered)]);
    let line = bench.last();
    assert_eq!(line.lasted, Some(66 * SECOND));
    assert_eq!(line.refused_for, Some(66 * SECOND));
}

#[test]
fn what_a_start_finds_is_told_at_once_and_says_when_refused_keys_are_tried() {
    let mut bench = Bench::new();
    let reason = "401 unknown_key".to_owned();
    let found = vec![
        Note::OtherBoot,
        Note::Adopted {
            from: "acme".into(),
        },
        Note::StillParked {
            reason,
            next: bench.now().wall,
        },
    ];
    let told = bench.notes(Duration::ZERO, found);
    assert_eq!(told, [OtherBoot, Adopted, StillParked]);
    let line = bench.last();
    assert_eq!(line.failure.said.as_deref(), Some("401 unknown_key"));
    assert_eq!(line.next, Some(bench.outlook().next));
    let grace = START_GRACE.as_secs();
    assert_eq!(bench.pass(grace + 5), [(grace, NoToken)]);
}

#[test]
fn what_waits_is_told_when_the_process_ends() {
    let mut bench = Bench::new();
    bench.minted(SECOND, 60 * MINUTE);
    bench.notes(SECOND, vec![failed()]);
    assert_eq!(bench.minted(SECOND, 60 * MINUTE), []);
    bench.notes(SECOND, vec![Note::Suspect(Generation(2))]);
    assert_eq!(bench.finish(), [Recovered, Suspect]);
    assert_eq!(bench.finish(), []);
}

#[test]
fn a_token_that_a_restart_finds_late_in_its_life_has_a_minute_to_be_replaced() {
    let mut bench = Bench::new();
    let late = (Generation(7), bench.now().plus(LEAD / 2 - SECOND));
    bench.token = Some(late);
    assert_eq!(bench.notes(SECOND, vec![Note::Found(late.0)]), [Found]);
    assert_eq!(bench.pass(58), []);
    assert_eq!(bench.pass(5), [(61, HalfLead)]);
    // And one that has ended is no news.
    let mut bench = Bench::new();
    bench.token = Some((Generation(7), bench.now()));
    assert_eq!(bench.notes(SECOND, vec![Note::Found(Generation(7))]), []);
}

#[test]
fn news_of_an_outage_stand_in_the_place_of_its_summary() {
    let mut bench = Bench::new();
    bench.minted(Duration::ZERO, 60 * MINUTE);
    bench.pass(100);
    assert_eq!(bench.notes(Duration::ZERO, vec![failed()]), [Failed]);
    let keys = Event::KeysChanged {
        count: 2,
        added: vec![1],
        removed: vec![],
    };
    assert_eq!(bench.step(SECOND, vec![keys]), []);
    assert_eq!(bench.pass(118), [(160, KeysChanged)]);
    let (_, line) = &bench.lines[2];
    assert_eq!(line.failed, Some(1), "it sums up the outage too");
    assert!(line.next.is_some());
    assert_eq!(bench.pass(1), [(220, GoesOn)]);
}

#[test]
fn changes_of_keys_that_wait_are_told_together() {
    let mut bench = Bench::new();
    let change = |added: &[usize], removed: &[usize]| Event::KeysChanged {
        count: 1,
        added: added.to_vec(),
        removed: removed.to_vec(),
    };
    bench.minted(Duration::ZERO, 60 * MINUTE);
    bench.notes(SECOND, vec![failed()]);
    bench.step(SECOND, vec![change(&[1, 2], &[])]);
    bench.step(SECOND, vec![change(&[3], &[0, 2])]);
    assert_eq!(bench.pass(60), [(61, KeysChanged)]);
    let line = bench.last();
    let Keys { added, removed, .. } = line.keys.as_ref().unwrap();
    assert_eq!(
        (line.times, &added[..], &removed[..]),
        (2, &[3, 1][..], &[0, 2][..])
    );
}

#[test]
fn a_register_that_fails_is_summed_up_and_its_end_told() {
    let mut bench = Bench::new();
    bench.minted(Duration::ZERO, 60 * MINUTE);
    bench.pass(100);
    let down = || Note::RegisterDown("no space".into());
    assert_eq!(bench.notes(Duration::ZERO, vec![down()]), [RegisterDown]);
    for _ in 0..9 {
        assert_eq!(bench.notes(SECOND, vec![down()]), []);
    }
    assert_eq!(bench.pass(52), [(160, RegisterStillDown)]);
    assert_eq!(bench.last().failed, Some(10));
    assert_eq!(bench.notes(SECOND, vec![Note::RegisterUp]), [RegisterUp]);
    assert_eq!(bench.last().lasted, Some(62 * SECOND));
    assert_eq!(bench.pass(200), []);
}

#[test]
fn a_token_that_lives_again_after_a_step_of_the_wall_clock_is_told() {
    let mut bench = Bench::new();
    bench.minted(Duration::ZERO, 60 * MINUTE);
    bench.pass(100);
    let (generation, end) = bench.token.unwrap();
    bench.token = Some((generation, bench.now()));
    assert_eq!(bench.notes(Duration::ZERO, vec![]), [NoToken]);
    bench.token = Some((generation, end));
    assert_eq!(bench.notes(SECOND, vec![]), [LivesAgain]);
    assert_eq!(bench.last().refused_for, Some(SECOND));
}

/// What may happen in a step.
#[derive(Clone, Copy, Debug)]
enum Happens {
    Failed,
    Parked,
    Minted(u64),
    Found(u64),
    RegisterFails,
    RegisterServes,
    KeysFail,
    KeysRead,
    KeysChanged,
    Odd,
    Suspect,
    Lost,
    New,
}

fn happens() -> impl Strategy<Value = Happens> {
    let life = 1..4_000_u64;
    prop_oneof![
        8 => Just(Happens::Failed),
        1 => Just(Happens::Parked),
        3 => life.clone().prop_map(Happens::Minted),
        1 => life.prop_map(Happens::Found),
        2 => Just(Happens::RegisterFails),
        2 => Just(Happens::RegisterServes),
        1 => Just(Happens::KeysFail),
        1 => Just(Happens::KeysRead),
        1 => Just(Happens::KeysChanged),
        1 => Just(Happens::Odd),
        1 => Just(Happens::Suspect),
        1 => Just(Happens::Lost),
        1 => Just(Happens::New),
    ]
}

/// The simplest account of the same: it only counts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    /// How many there were of what is told one by one.
    minted: u32,
    found: u32,
    changed: u32,
    suspect: u32,
    odd: u32,
    lost: u32,
    new: u32,
    failures: u32,
    outages: u32,
    outage_time: Duration,
    register_failures: u32,
    register_outages: u32,
    key_outages: u32,
    refusals: u32,
    refused_time: Duration,
}

/// The same account by what the lines say.
fn told(lines: &[(Duration, Line)]) -> Account {
    let mut told = Account::default();
    for (_, line) in lines {
        let times = line.times;
        match line.message {
            Recovered | RecoveredByOther | LivesAgain => {
                told.outages += times;
                told.failures += line.failed.unwrap();
                told.outage_time += line.lasted.unwrap();
                told.refused_time += line.refused_for.unwrap_or_default();
            }
            Message::RegisterUp => {
                told.register_outages += times;
                told.register_failures += line.failed.unwrap();
            }
            KeysReadable => told.key_outages += times,
            Minted => told.minted += times,
            MintedOddly => {
                told.minted += times;
                told.odd += times;
            }
            Found => told.found += times,
            KeysChanged => told.changed += times,
            Suspect => told.suspect += times,
            Odd => told.odd += times,
            RecordLost => told.lost += times,
            NewRecord => told.new += times,
            _ => {}
        }
    }
    told
}

/// Runs a history, and gives the account of what happened in it.
fn run(bench: &mut Bench, history: &[(u64, bool, Vec<Happens>)]) -> Account {
    let mut account = Account::default();
    // Since when there is an outage, and since when callers are refused.
    let (mut outage, mut refused): (Option<Duration>, Option<Duration>) = (None, None);
    let (mut register, mut keys) = (None::<u32>, false);
    let mut failures = 0;
    let mut has_lived = false;
    let mut first = None;
    for (milliseconds, settling, all) in history {
        let at = bench.at + Duration::from_millis(*milliseconds);
        let first = *first.get_or_insert(at);
        bench.settling = *settling;
        let (mut events, mut deaths) = (Vec::new(), false);
        let mut note = |note| events.push(Event::Note(note));
        // At most one attempt ends in a step, and one token comes.
        let mut ended = false;
        let began = bench.now().minus(bench.at);
        for happens in all {
            match happens {
                Happens::Failed | Happens::Parked if !ended => {
                    ended = true;
                    if matches!(happens, Happens::Parked) {
                        note(Note::Parked("refused".into()));
                    }
                    note(failed());
                    failures += 1;
                    outage.get_or_insert(at);
                }
                Happens::Minted(life) | Happens::Found(life) if !ended => {
                    ended = true;
                    let generation = bench.token.map_or(Generation(1), |(it, _)| it.next());
                    let end = began.plus(at + Duration::from_secs(*life));
                    bench.token = Some((generation, end));
                    let minted = matches!(happens, Happens::Minted(_));
                    note(match minted {
                        true => Note::Minted(generation),
                        false => Note::Found(generation),
                    });
                    match (outage.take(), minted) {
                        (Some(since), _) => {
                            account.outages += 1;
                            account.outage_time += at - since;
                            account.failures += std::mem::take(&mut failures);
                            if let Some(since) = refused.take() {
                                account.refused_time += at - since;
                            }
                        }
                        (None, true) => account.minted += 1,
                        (None, false) => account.found += 1,
                    }
                }
                Happens::RegisterFails => {
                    *register.get_or_insert(0) += 1;
                    note(Note::RegisterDown("down".into()));
                }
                Happens::RegisterServes if register.is_some() => {
                    account.register_outages += 1;
                    account.register_failures += register.take().unwrap();
                    note(Note::RegisterUp);
                }
                Happens::Odd => {
                    account.odd += 1;
                    note(Note::Odd("odd".into()));
                }
                Happens::Suspect => {
                    account.suspect += 1;
                    note(Note::Suspect(Generation(1)));
                }
                Happens::Lost => {
                    account.lost += 1;
                    note(Note::RecordLost);
                }
                Happens::New => {
                    account.new += 1;
                    note(Note::NewRecord);
                }
                _ => {}
            }
        }
        for happens in all {
            match happens {
                Happens::KeysFail if !keys => {
                    keys = true;
                    events.push(Event::KeysUnreadable("gone".into()));
                }
                Happens::KeysRead if keys => {
                    keys = false;
                    account.key_outages += 1;
                    events.push(Event::KeysReadable);
                }
                Happens::KeysChanged => {
                    account.changed += 1;
                    events.push(Event::KeysChanged {
                        count: 1,
                        added: vec![],
                        removed: vec![],
                    });
                }
                _ => {}
            }
        }
        let end = bench.token.map(|(_, end)| end.boot - began.boot);
        let live = end.is_some_and(|end| end > at);
        has_lived |= live;
        if !live && refused.is_none() {
            let since = match end.filter(|_| has_lived) {
                Some(end) => Some(end),
                None if at - first >= START_GRACE => Some(first),
                None => None,
            };
            if let Some(since) = since {
                account.refusals += 1;
                outage.get_or_insert(since);
                refused = Some(since);
                deaths = has_lived;
            }
        }
        // A token that was known for long enough, and nothing older that must be told first.
        let in_order = bench.throttle.attempts.over.is_none();
        let seen = bench.throttle.token.map(|(_, seen)| seen.boot - began.boot);
        let known = seen
            .zip(end)
            .is_some_and(|(seen, end)| end >= seen + PERIOD);
        let said = bench.step(Duration::from_millis(*milliseconds), events);
        if deaths && in_order && known {
            assert!(said.contains(&NoToken), "at {:?}: {said:?}", bench.at);
        }
        if !settling && refused.is_some_and(|since| at - since >= 2 * PERIOD) {
            assert!(bench.throttle.refusal.unwrap().told, "at {at:?}");
        }
    }
    // What goes on is not over yet.
    bench.finish();
    let open = bench.throttle.attempts.open.as_ref();
    let open = open.map_or(0, |open| open.failed);
    assert_eq!(open, failures, "of the outage that goes on");
    account
}

fn history() -> impl Strategy<Value = Vec<(u64, bool, Vec<Happens>)>> {
    let length = prop_oneof![4 => 1_000..1_001_u64, 2 => 1..20_000_u64, 1 => 1..600_000_u64];
    let step = (
        length,
        prop::bool::weighted(0.1),
        prop::collection::vec(happens(), 0..3),
    );
    prop::collection::vec(step, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes: never more than two lines in a minute, and each failure, outage and piece of
    /// news is told once, with its length or its number.
    #[test]
    fn nothing_floods_the_log_and_nothing_is_left_out(history in history(), half_leads: bool) {
        let mut bench = Bench::new();
        // By half of the lead the reference does not count.
        bench.lead = if half_leads { LEAD } else { Duration::ZERO };
        let account = run(&mut bench, &history);
        let before = bench.lines.len() - bench.at_the_end;
        let mut first: Vec<Message> = Vec::new();
        let mut counted = Vec::new();
        for (at, line) in &bench.lines[..before] {
            if START_FACTS.contains(&line.message) && !first.contains(&line.message) {
                first.push(line.message);
            } else {
                counted.push(*at);
            }
        }
        for of_three in counted.windows(MAX_LINES + 1) {
            prop_assert!(of_three[MAX_LINES] - of_three[0] >= PERIOD, "{of_three:?}");
        }
        let mut told = told(&bench.lines);
        if half_leads {
            return Ok(());
        }
        told.refusals = account.refusals;
        prop_assert_eq!(told, account);
    }
}
