//! The laws, as somebody sees them who knows the truth: every arrival, every token's end, every slot that was taken.
//!
//! Nothing here asks the product. A broken law panics, and says which and how.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bearerd::budget::Class;
use bearerd::record::{Absent, Outcome, Record, Rules, Slot, Trigger};
use bearerd::token::{Generation, Token};

use crate::clocks::{Nanos, nanos};

/// By how much of a length the worst boot clock is off: 500 ppm, and as much for the other side.
const DRIFT: Nanos = 1000;

/// Which stretch of the truth something belongs to. A new one begins when a record is lost that nobody alive holds: the budget's one
/// assumption is gone then, and its windows begin anew.
pub type Epoch = u32;

/// An attempt as the register took it.
struct Begun {
    attempt: Generation,
    holder: String,
    at: Nanos,
}

/// What was refused in a row, with the set of keys that was tried last.
#[derive(Default)]
struct Refusals {
    keys: String,
    count: u32,
}

/// So many sets of keys a record knows, as refused and as tried.
const SETS: usize = 8;

/// A record that was born where nothing was known of the past.
struct Unknown {
    /// By then everything unknown has freed itself.
    until: Nanos,
    /// So many requests may be sooner than the blind pace.
    at_once: usize,
    /// What was begun, by whom and when, and whether it was sooner.
    begun: Vec<(Generation, String, Nanos, bool)>,
    born: Nanos,
}

/// What must hold, and what is remembered to tell.
pub struct Laws {
    rules: Rules,
    pub epoch: Epoch,
    arrivals: VecDeque<(Nanos, Epoch)>,
    /// Under a shorter window what arrived before this was forgotten.
    forgotten_before: Nanos,
    pub worst: usize,
    pub attempts: u64,
    pub reads: u64,
    /// Which token each generation was vended with, since old numbers could last come again.
    vended: HashMap<Generation, u64>,
    absent: Absent,
    begun: Option<Begun>,
    refusals: Refusals,
    /// Sets of which every key was refused, and since when, newest last.
    parked: VecDeque<(String, Nanos)>,
    /// Sets that were tried since the last token.
    tried: Vec<String>,
    unknown: Option<Unknown>,
    /// A copy of a record may be back that knows of fewer requests than were made: whoever finds it may begin anew.
    copy_is_back: bool,
    /// When intermediaries answered in a row, with nothing that could have mended it in between.
    misled: VecDeque<Nanos>,
    reported: VecDeque<(Generation, Nanos)>,
}

impl Laws {
    pub fn new(rules: Rules, absent: Absent) -> Self {
        Self {
            rules,
            epoch: 0,
            arrivals: VecDeque::new(),
            forgotten_before: 0,
            worst: 0,
            attempts: 0,
            reads: 0,
            vended: HashMap::new(),
            absent,
            begun: None,
            refusals: Refusals::default(),
            parked: VecDeque::new(),
            tried: Vec::new(),
            unknown: None,
            copy_is_back: false,
            misled: VecDeque::new(),
            reported: VecDeque::new(),
        }
    }

    /// The record is lost, and nobody holds it; its generations may come again if `generations_too`.
    pub fn lost(&mut self, generations_too: bool) {
        self.epoch += 1;
        self.forget_the_record();
        self.copy_is_back = true;
        if generations_too {
            self.generations_may_repeat();
        }
    }

    /// An older copy of the record, or a wall clock behind the one that the last record was born under.
    pub fn generations_may_repeat(&mut self) {
        self.vended.clear();
    }

    /// What only a record can know is forgotten with it. Law 1 is not: where records last no longer than processes, it holds all
    /// the same.
    pub fn forget_the_record(&mut self) {
        self.begun = None;
        self.refusals.count = 0;
        self.parked.clear();
        self.tried.clear();
        self.unknown = None;
        self.misled.clear();
        self.reported.clear();
    }

    /// Everybody goes by these lengths from now on.
    pub fn lengthen(&mut self, rules: Rules, now: Nanos) {
        let window = nanos(self.rules.budget.window);
        self.forgotten_before = now.saturating_sub(window);
        self.rules = rules;
    }

    /// A refresh that nothing calls for but the schedule, of a token that truly lives until `end`.
    pub fn begun_for_the_schedule(&self, now: Nanos, end: Nanos, trigger: Trigger) {
        // Each of a few machines may have taken the skew off it, for another wall clock.
        let early = nanos(self.rules.lead) + 4 * nanos(self.rules.skew + self.rules.timeout);
        let left = end.saturating_sub(now);
        let scheduled = matches!(
            trigger,
            Trigger::Schedule | Trigger::Expiry | Trigger::FirstToken
        );
        assert!(
            !scheduled || left <= early,
            "pace: a token that lives for {:?} more is replaced, for {trigger:?}",
            Duration::from_nanos(left)
        );
    }

    /// Law 1: a request arrives.
    pub fn arrived(&mut self, now: Nanos, epoch: Epoch) {
        self.attempts += 1;
        let window = nanos(self.rules.budget.window);
        while self.arrivals.front().is_some_and(|it| it.0 + window < now) {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back((now, epoch));
        let known = |it: &&(Nanos, Epoch)| it.1 == epoch && it.0 >= self.forgotten_before;
        let counted = self.arrivals.iter().filter(known).count();
        self.worst = self.worst.max(counted);
        let limit = self.rules.budget.limit.get() as usize;
        assert!(
            counted <= limit,
            "law 1: {counted} mints in a closed window of {:?}, and {limit} are allowed",
            self.rules.budget.window
        );
    }

    /// A record takes another's place.
    ///
    /// `bore`: when its writer made one, having found none. What is brought back has been written before.
    pub fn replaced(&mut self, before: Option<&Record>, next: &Record, bore: Option<Nanos>) {
        let Some(before) = before else {
            self.unknown = None;
            if let Some(bore) = bore.filter(|_| next.revision == 1) {
                self.born(bore);
            }
            return;
        };
        assert!(
            next.generation >= before.generation,
            "law 3: the record's generation went back from {} to {}",
            before.generation,
            next.generation
        );
        let kept = match (&before.token, &next.token) {
            (Some(was), Some(is)) => {
                was.generation < is.generation
                    || (was.generation == is.generation && was.secret == is.secret)
            }
            (Some(_), None) => false,
            (None, _) => true,
        };
        assert!(
            kept,
            "law 3: the record's token was replaced by none that is newer"
        );
        // What is given back never left. Slots that have freed themselves leave with the next attempt.
        if next.ledger.len() < before.ledger.len() && next.generation == before.generation {
            let has =
                |record: &Record, attempt| record.ledger.iter().any(|it| it.attempt == attempt);
            self.reported
                .retain(|it| has(next, it.0) || !has(before, it.0));
        }
    }

    /// An attempt is in the record: was it allowed by what is known of those before it?
    pub fn begun(&mut self, before: Option<&Record>, slot: &Slot, keys: &str, now: Nanos) {
        if let (Some(last), Some(before)) = (&self.begun, before) {
            let same = |it: &&Slot| it.attempt == last.attempt && it.holder == last.holder;
            let open = before.ledger.iter().find(same).is_some_and(|it| {
                matches!(
                    it.outcome,
                    Outcome::Begun | Outcome::Lost | Outcome::Intermediary
                )
            });
            let pause = match self.one_was_begun_on_unknown_history() {
                true => nanos(self.rules.first_retry),
                false => nanos(self.rules.backoff.first) * 8 / 10,
            };
            let waited = now.saturating_sub(last.at);
            assert!(
                !open || self.is_untried(keys) || waited + pause / DRIFT >= pause,
                "pace: the back-off is forgotten, {:?} after a lost attempt comes the next, {:?}",
                Duration::from_nanos(waited),
                slot.trigger
            );
        }
        // Numbers are left out where copies were merged, which know one trial of keys together.
        let next = |begun: &Begun| begun.attempt.0 + 1 == slot.attempt.0;
        if !self.begun.as_ref().is_some_and(next) {
            self.refusals.count = 0;
        }
        self.begun_while_parked(slot, keys, now);
        self.begun_on_unknown_history(slot, now);
        if slot.trigger == Trigger::Operator || self.refusals.keys != keys {
            self.refusals.count = 0;
        }
        // An operator or another set may have mended what stands before the issuer.
        if slot.trigger == Trigger::Operator || self.is_untried(keys) {
            self.misled.clear();
        }
        if self.tried.len() < SETS && !self.tried.iter().any(|it| it == keys) {
            self.tried.push(keys.to_owned());
        }
        if slot.class == Class::Reported {
            self.begun_for_a_report(before, slot.attempt, now);
        }
        self.begun = Some(Begun {
            attempt: slot.attempt,
            holder: slot.holder.clone(),
            at: now,
        });
    }

    /// A set that was not tried since the last token need not wait for what went wrong with others.
    fn is_untried(&self, keys: &str) -> bool {
        self.tried.len() < SETS && !self.tried.iter().any(|it| it == keys)
    }

    /// Each set is parked by itself. An operator unparks it.
    fn begun_while_parked(&mut self, slot: &Slot, keys: &str, now: Nanos) {
        let Some(at) = self.parked.iter().position(|it| it.0 == keys) else {
            return;
        };
        if slot.trigger == Trigger::Operator {
            self.parked.remove(at);
            return;
        }
        let pause = nanos(self.rules.parked_retry);
        let waited = now.saturating_sub(self.parked[at].1);
        assert!(
            waited >= pause - pause / 10,
            "pace: the parking is forgotten, {:?} after the last key was refused comes {:?}",
            Duration::from_nanos(waited),
            slot.trigger
        );
    }

    /// A record was born, and nothing is known of what was spent before.
    fn born(&mut self, now: Nanos) {
        let period = nanos(self.rules.budget.period());
        // A wall clock that is believed across a boot may be off by the skew.
        let sure = period - period / DRIFT - 3 * nanos(self.rules.skew).min(period / 10);
        self.copy_is_back = false;
        self.unknown = Some(Unknown {
            until: match self.absent {
                Absent::Forgetful => Nanos::MAX,
                Absent::New | Absent::Wait => now + sure,
            },
            at_once: match self.absent {
                Absent::New => 3,
                Absent::Wait | Absent::Forgetful => 0,
            },
            begun: Vec::new(),
            born: now,
        });
    }

    /// True if one request was made since the record was born, which may be retried soon.
    fn one_was_begun_on_unknown_history(&self) -> bool {
        let unknown = self.unknown.as_ref();
        self.copy_is_back || unknown.is_some_and(|it| it.at_once > 0 && it.begun.len() == 1)
    }

    /// Three requests may be sooner than the blind pace, or none.
    fn begun_on_unknown_history(&mut self, slot: &Slot, now: Nanos) {
        let pace = nanos(self.rules.budget.blind_pace());
        let Some(unknown) = self.unknown.as_mut().filter(|it| it.until > now) else {
            self.unknown = None;
            return;
        };
        let last = unknown.begun.iter().map(|it| it.2).max();
        let sooner = match (last, self.absent) {
            (None, Absent::New | Absent::Wait) => true,
            (None, Absent::Forgetful) => now - unknown.born + pace / DRIFT < pace,
            (Some(last), _) => now - last + pace / DRIFT < pace,
        };
        let (attempt, holder) = (slot.attempt, slot.holder.clone());
        unknown.begun.push((attempt, holder, now, sooner));
        let count = unknown.begun.iter().filter(|it| it.3).count();
        assert!(
            count <= unknown.at_once,
            "pace: {count} requests at once on an unknown history, {:?} after the record was born",
            Duration::from_nanos(now - unknown.born)
        );
    }

    /// Law 8: reports have slots of their own, and never the last ones.
    fn begun_for_a_report(&mut self, before: Option<&Record>, attempt: Generation, now: Nanos) {
        let budget = &self.rules.budget;
        let counts = nanos(budget.window);
        self.reported.retain(|it| it.1 + counts > now);
        self.reported.push_back((attempt, now));
        assert!(
            self.reported.len() <= 3,
            "law 8: a fourth reported mint in a window"
        );
        let limit = budget.limit.get();
        let taken = before.map_or(0, |record| {
            let taken = |slot: &&Slot| slot.frees_at.boot > record.written.at.boot;
            record.ledger.iter().filter(taken).count()
        });
        // Some of these may have freed themselves since that record was written: only a clear breach is told.
        let newest = self
            .arrivals
            .iter()
            .filter(|it| it.1 == self.epoch && it.0 + counts >= now);
        let surely = taken.min(newest.count());
        assert!(
            surely < (limit - 2.min(limit - 1)) as usize,
            "law 8: a reported mint takes the last slots"
        );
    }

    /// An attempt's end is in the record.
    pub fn settled(
        &mut self,
        attempt: Generation,
        slot: Option<&Slot>,
        next: &Record,
        count: u32,
        now: Nanos,
    ) {
        let Some(slot) = slot else {
            // Given back: it never left.
            if let Some(unknown) = &mut self.unknown {
                let holder = &next.written.holder;
                unknown
                    .begun
                    .retain(|it| it.0 != attempt || it.1 != *holder);
            }
            let last = &next.keys.fingerprint;
            if !next.tried.contains(last) {
                self.tried.retain(|it| it != last);
            }
            return self.reported.retain(|it| it.0 != attempt);
        };
        match slot.outcome {
            Outcome::Intermediary if slot.attempt == next.generation => self.misled_again(now),
            Outcome::Begun | Outcome::Intermediary => {}
            _ => self.misled.clear(),
        }
        let set = &next.keys.fingerprint;
        match slot.outcome {
            // The end of a late writer parks nobody.
            Outcome::Refused if slot.attempt == next.generation => {
                if self.refusals.keys != *set {
                    self.refusals.keys.clone_from(set);
                    self.refusals.count = 0;
                }
                self.refusals.count += 1;
                let known = self.parked.iter().any(|it| it.0 == *set);
                if known || self.refusals.count >= count {
                    self.parked.retain(|it| it.0 != *set);
                    self.parked.push_back((set.clone(), now));
                    if self.parked.len() > SETS {
                        self.parked.pop_front();
                    }
                }
            }
            Outcome::Minted => {
                self.refusals.count = 0;
                self.copy_is_back = false;
                self.tried.clear();
                if slot.attempt == next.generation {
                    self.parked.retain(|it| it.0 != *set);
                }
            }
            _ => {}
        }
    }

    /// A row of answers that are not the issuer's takes half of the slots.
    fn misled_again(&mut self, now: Nanos) {
        let window = nanos(self.rules.budget.window);
        self.misled.retain(|at| at + window > now);
        self.misled.push_back(now);
        let half = self.rules.budget.limit.get().div_ceil(2) as usize;
        assert!(
            self.misled.len() <= half,
            "pace: {} answers of intermediaries in a row in a window, and half of the slots are theirs",
            self.misled.len()
        );
    }

    /// Laws 3 and 4: a token is put out.
    pub fn published(
        &mut self,
        before: Option<(&Token, bool)>,
        token: &Token,
        suspect: bool,
        index: u64,
        epoch: Epoch,
    ) {
        if let Some((before, was_suspect)) = before {
            let same = before.generation == token.generation && suspect && !was_suspect;
            assert!(
                before.generation < token.generation || same,
                "law 3: {} is vended after {}",
                token.generation,
                before.generation
            );
        }
        // A token from before the record was lost may bear a number that comes again.
        if epoch == self.epoch {
            let known = *self.vended.entry(token.generation).or_insert(index);
            assert!(
                known == index,
                "law 3: two tokens are vended as generation {}",
                token.generation
            );
        }
    }

    /// Law 4: a token is put out that is said to live for so long. The clock that says so may have drifted since it was minted, and may
    /// be drifting now.
    pub fn promised(&self, now: Nanos, left: Nanos, end: Nanos, drifts: bool) {
        let since = nanos(self.rules.lifetime).saturating_sub(end.saturating_sub(now));
        let late = (now + left).saturating_sub(end);
        let ahead = if drifts { left } else { 0 };
        assert!(
            late <= (since + ahead) / DRIFT,
            "law 4: a token is said to end {:?} after its end",
            Duration::from_nanos(late)
        );
    }

    /// Law 4: somebody reads a token whose true end is known.
    pub fn read(&mut self, now: Nanos, end: Nanos) {
        self.reads += 1;
        let late = now.saturating_sub(end);
        let allowed = nanos(self.rules.lifetime) / DRIFT;
        assert!(
            late <= allowed,
            "law 4: a token is vended {:?} after its end",
            Duration::from_nanos(late)
        );
    }
}
