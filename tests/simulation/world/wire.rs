//! The far ends of a world's wires: the register, and the issuer's client.

use std::time::Duration;

use bearerd::clock::Stamp;
use bearerd::issuer::{Answer, Delivery};
use bearerd::keeper::Input;
use bearerd::record::{Record, RegisterError, Slot, Swapped, Version};

use super::{What, World};
use bearerd::token::Generation;

use crate::clocks::{MILLI, Nanos, SECOND, nanos};
use crate::faults::{Boundary, Kind};
use crate::laws::Epoch;
use crate::node::{Life, Write};
use crate::register::{Unknown, down};
use crate::setting::{Edge, Theme};
use crate::upstream::index_of;

/// A write on its way.
pub struct Swap {
    pub node: usize,
    pub life: u32,
    /// When it was decided.
    pub at: Nanos,
    pub seen: Option<Version>,
    pub next: Box<Record>,
    pub write: Write,
    /// The attempt that it ends, and how many keys its process knows.
    pub ends: Option<(Generation, u32)>,
    /// When its process made a record, having found none.
    pub bore: Option<Nanos>,
    /// It is done even if its process is dead by then.
    pub orphan: bool,
    /// Somebody waits for the answer.
    pub awaited: bool,
}

/// A request on its way.
pub struct Request {
    node: usize,
    life: u32,
    sent_at: Stamp,
    weather: Option<Kind>,
    key: u32,
    epoch: Epoch,
    /// How long the answer takes, if it comes in time.
    back: Option<Nanos>,
    extra: u64,
}

/// What a build of format 1.0 does not write again.
fn forget_what_is_new(record: &mut Record) {
    for slot in &mut record.ledger {
        (slot.lengths, slot.carried) = (None, false);
    }
    if let Some(unknown) = &mut record.probation {
        (unknown.period, unknown.at_once) = (None, 0);
    }
    record.keys.retry_at = None;
}

impl World {
    fn unreachable(&self, node: usize) -> Option<RegisterError> {
        let cut = self.register.down_until.max(self.nodes[node].cut_until);
        (cut > self.now).then(down)
    }

    pub(super) fn load(&mut self, node: usize, number: u32) {
        if !self.alive(node, number) {
            return;
        }
        let result = match self.unreachable(node) {
            Some(error) => Err(error),
            None => {
                let through_text = self.dice.u8(..) == 0;
                Ok(self.register.load(through_text))
            }
        };
        if let (Ok(loaded), Some(life)) = (&result, &mut self.nodes[node].life) {
            life.seen = loaded.found.as_ref().map(|it| it.1.clone());
            if self.setting.edge == Edge::NoMerge && loaded.found.is_none() && life.vended.is_some()
            {
                // A mutation: it forgets what it held. Law 1 is to speak, and not what a record alone can know.
                self.laws.forget_the_record();
                self.laws.generations_may_repeat();
                let seed = self.dice.u64(..);
                let boot_id = self.boot_id(node);
                self.lives += 1;
                self.nodes[node].life = Some(Life::new(self.lives, &self.setting, boot_id, seed));
                return self.give_keys(node);
            }
        }
        self.answer(node, number, Input::Loaded(result));
    }

    pub(super) fn swap(&mut self, swap: Swap) {
        let Swap {
            node, life: number, ..
        } = swap;
        let alive = self.alive(node, number);
        if !alive && !swap.orphan {
            return;
        }
        let outcome = self.swapped(swap);
        let (outcome, write, awaited) = outcome;
        if !alive {
            return;
        }
        let life = self.nodes[node].life.as_mut().expect("it lives");
        match &outcome {
            Swapped::Done(version) => {
                life.seen = Some(version.clone());
                if self.dies(node, write.done()) {
                    return;
                }
            }
            // It will be decided anew.
            Swapped::Conflict | Swapped::Unavailable(_) if write == Write::Reserve && awaited => {
                life.open = None;
            }
            _ => {}
        }
        if awaited {
            self.answer(node, number, Input::Swapped(outcome));
        }
    }

    /// What a write comes to.
    fn swapped(&mut self, swap: Swap) -> (Swapped, Write, bool) {
        let Swap {
            node,
            write,
            awaited,
            ..
        } = swap;
        if self.unreachable(node).is_some() || self.register.full_until > self.now {
            return (Swapped::Unavailable(down()), write, awaited);
        }
        match self.register.unknown.take() {
            None => {}
            Some(Unknown::NotDone) => return (Swapped::Unknown(down()), write, awaited),
            Some(Unknown::Late) if awaited => {
                let after = self.dice.u64(SECOND / 2..30 * SECOND);
                let late = Swap {
                    awaited: false,
                    orphan: true,
                    ..swap
                };
                self.push(after, What::Swap(Box::new(late)));
                return (Swapped::Unknown(down()), write, true);
            }
            Some(_) => {
                self.apply(swap);
                return (Swapped::Unknown(down()), write, awaited);
            }
        }
        if self.register.version() != swap.seen {
            return (Swapped::Conflict, write, awaited);
        }
        self.apply(swap);
        (self.register.done(), write, awaited)
    }

    /// Puts a record in, if it still fits, with everything that must hold of it.
    fn apply(&mut self, swap: Swap) {
        if self.register.version() != swap.seen {
            return;
        }
        let (node, mut next) = (swap.node, swap.next);
        if self.nodes[node].old {
            forget_what_is_new(&mut next);
        }
        if swap.write == Write::Reserve {
            self.is_called_for(&next);
        }
        let before = self.register.record();
        self.laws.replaced(before, &next, swap.bore);
        let own = |slot: &&Slot| slot.attempt == next.generation;
        let now = self.now;
        let alive = self.nodes[node]
            .life
            .as_mut()
            .filter(|life| life.number == swap.life);
        match swap.write {
            Write::Reserve => {
                let slot = next.ledger.iter().rfind(own).expect("a slot is taken");
                self.laws
                    .begun(before, slot, &next.keys.fingerprint, swap.at);
                let epoch = self.laws.epoch;
                if let Some(open) = alive.and_then(|life| life.open.as_mut()) {
                    (open.reserved, open.epoch) = (Some(now), epoch);
                }
            }
            Write::Settle => {
                if let Some(life) = alive {
                    life.open = None;
                }
                if let Some((attempt, keys)) = swap.ends {
                    let taken = |slot: &&Slot| {
                        slot.attempt == attempt && slot.holder == next.written.holder
                    };
                    let slot = next.ledger.iter().find(taken);
                    self.laws.settled(attempt, slot, &next, keys, now);
                }
            }
            Write::Store => {}
        }
        let wall_ahead = self.machines[self.nodes[node].machine].wall_ahead;
        let generation = next.generation;
        self.register.put(next, wall_ahead, self.nodes[node].hidden);
        self.tell(|| {
            format!(
                "the register takes {:?} of node {node}: generation {generation}",
                swap.write
            )
        });
        self.tell_others(node);
    }

    /// While all clocks are right, no token is replaced long before it is due.
    fn is_called_for(&self, next: &Record) {
        let Some(token) = next.token.as_ref() else {
            return;
        };
        let index = usize::try_from(index_of(&token.secret)).expect("an index");
        let issued = self.upstream.tokens[index];
        let drifts = self.machines.iter().any(|machine| machine.ppm != 0);
        let right = issued.minted > self.clocks_right_since && !drifts;
        let taken = |slot: &&Slot| slot.attempt == next.generation;
        let slot = next.ledger.iter().rfind(taken).expect("a slot is taken");
        if right && !issued.revoked && !self.setting.rules.revokes_previous {
            self.laws
                .begun_for_the_schedule(self.now, issued.end, slot.trigger);
        }
    }

    pub(super) fn tell_others(&mut self, writer: usize) {
        let lags = self.register.lag_until > self.now;
        for node in 0..self.nodes.len() {
            let Some(life) = self.nodes[node].life.as_mut() else {
                continue;
            };
            if node == writer || life.told {
                continue;
            }
            life.told = true;
            let number = life.number;
            let poll = if lags { 20 * SECOND } else { SECOND / 2 };
            let after = self.dice.u64(MILLI..poll);
            self.push(after, What::Give(node, number, Box::new(Input::Changed)));
        }
    }

    /// The issuer's client: it looks at the clock, and sends.
    pub(super) fn post(&mut self, node: usize, number: u32, send_by: Duration, key: u32) {
        let sent_at = self.stamp(node);
        let weather = self.upstream.weather(self.now);
        if weather.is_some() {
            // What was meant for the next request may have waited for it.
            self.trouble_until = self.trouble_until.max(self.now);
        }
        if sent_at.boot > send_by || weather == Some(Kind::Unreachable) {
            let detail = String::new();
            return self.answer(node, number, Input::Minted(Answer::NotSent { detail }));
        }
        let epoch = self.may_post(node);
        let rules = &self.setting.rules;
        let (timeout, in_flight) = (nanos(rules.timeout), nanos(rules.budget.in_flight));
        let latency = self.setting.latency;
        let leg = |dice: &mut fastrand::Rng| match weather {
            Some(Kind::Slow) => dice.u64(timeout * 3 / 10..timeout * 7 / 10),
            _ => dice.u64(latency / 4..latency),
        };
        let back = leg(&mut self.dice);
        let there = match weather {
            Some(Kind::CountedLate) => self.dice.u64(0..(in_flight - timeout) * 8 / 10),
            Some(Kind::Intermediary) => {
                let answer = Answer::Intermediary {
                    detail: String::new(),
                };
                let soon = back.min(timeout / 2);
                self.push(
                    soon,
                    What::Give(node, number, Box::new(Input::Minted(answer))),
                );
                if self.dice.bool() {
                    return;
                }
                self.dice.u64(0..(in_flight - timeout) * 8 / 10)
            }
            Some(Kind::Retransmitted) => match self.delivered_by_the_system(node, send_by, sent_at)
            {
                Some(there) => there,
                // The system forgot it.
                None => return self.lose_the_answer(node, number),
            },
            _ => leg(&mut self.dice),
        };
        let heard = !matches!(
            weather,
            Some(Kind::CountedLate | Kind::AnswerLost | Kind::Retransmitted | Kind::Interim)
        );
        if weather == Some(Kind::Interim) {
            let busy = self.now + self.dice.u64(0..SECOND / 2);
            self.nodes[node].frozen_until = self.nodes[node].frozen_until.max(busy);
        }
        let answered = weather == Some(Kind::Intermediary);
        let back = (heard && !answered && there + back < timeout).then_some(back);
        if back.is_none() && !answered {
            self.lose_the_answer(node, number);
        }
        self.tell(|| {
            format!(
                "node {node} posts, weather {weather:?}, to arrive in {} ms",
                there / MILLI
            )
        });
        let request = Request {
            node,
            life: number,
            sent_at,
            weather,
            key,
            epoch,
            back,
            extra: self.dice.u64(..),
        };
        self.push(there, What::Arrive(Box::new(request)));
        self.dies(node, Boundary::PostSent);
    }

    /// Nothing is heard until the time-out.
    fn lose_the_answer(&mut self, node: usize, number: u32) {
        let lost = Answer::Lost {
            answered: false,
            detail: String::new(),
        };
        let timeout = nanos(self.setting.rules.timeout);
        self.push(
            timeout,
            What::Give(node, number, Box::new(Input::Minted(lost))),
        );
    }

    /// How long a request is on its way that was cut off, and that the system repeats until the way
    /// is free: never, if it has forgotten it by then. Once in four times the process stands still
    /// meanwhile, and gives nothing up.
    fn delivered_by_the_system(
        &mut self,
        node: usize,
        send_by: Duration,
        sent_at: Stamp,
    ) -> Option<Nanos> {
        let rules = &self.setting.rules;
        let (timeout, in_flight) = (nanos(rules.timeout), nanos(rules.budget.in_flight));
        let rule = Delivery::of(rules.timeout, rules.budget.in_flight, send_by, sent_at.boot);
        let stands_still = self.dice.u8(0..4) == 0;
        let cut_for = match self.setting.theme {
            Some(Theme::Retransmitted) => 20,
            _ => 3,
        };
        let free_after = self.dice.u64(0..cut_for * in_flight);
        let first_repetition = self.dice.u64(0..timeout / 4);
        let kept = first_repetition + nanos(rule.user_timeout);
        let forgotten_after = match (rule.resets, stands_still) {
            (true, false) => kept.min(timeout),
            (true, true) | (false, _) => kept,
        };
        if stands_still {
            let until = self.now + 4 * in_flight;
            self.nodes[node].frozen_until = self.nodes[node].frozen_until.max(until);
            self.trouble_until = self.trouble_until.max(until);
        }
        (free_after < forgotten_after).then_some(free_after)
    }

    /// Law 2 and single flight, at the moment at which a request leaves.
    fn may_post(&self, node: usize) -> Epoch {
        let open = self.nodes[node].life.as_ref().and_then(|life| life.open);
        let open = open.expect("a request belongs to an attempt");
        assert!(
            open.reserved.is_some(),
            "law 2: a request leaves without a durable slot"
        );
        let timeout = nanos(self.setting.rules.timeout);
        let waited = self.now - open.begun;
        assert!(
            waited <= timeout + timeout / 1000,
            "law 2: a request leaves {:?} after its attempt was begun",
            Duration::from_nanos(waited)
        );
        let claim = nanos(self.setting.rules.claim());
        let claim = claim - claim / 1000;
        for other in self
            .nodes
            .iter()
            .filter_map(|node| node.life.as_ref()?.open)
        {
            let minting = other.posted && !other.answered && other.epoch == open.epoch;
            let claimed = other.reserved.is_some() && other.begun + claim > self.now;
            assert!(
                !minting || !claimed || other.attempt == open.attempt,
                "single flight: two mint at a time, {} and {}",
                other.attempt,
                open.attempt
            );
        }
        open.epoch
    }

    pub(super) fn arrive(&mut self, request: &Request) {
        self.laws.arrived(self.now, request.epoch);
        let known = self.upstream.tokens.len();
        let answer = self.upstream.answer(
            self.now,
            request.sent_at,
            request.weather,
            request.key,
            request.extra,
        );
        for token in &mut self.upstream.tokens[known..] {
            token.epoch = request.epoch;
        }
        let (node, number) = (request.node, request.life);
        if self.alive(node, number)
            && !self.dies(node, Boundary::Counted)
            && let Some(back) = request.back
        {
            self.push(
                back,
                What::Give(node, number, Box::new(Input::Minted(answer))),
            );
        }
    }
}
