//! What happens in a node: a process starts, takes a step of the real keeper, carries out what it says, and dies.

use std::time::Duration;

use bearerd::keeper::{Input, Note, Output};
use bearerd::record::{Record, Swapped, Version};
use bearerd::token::Token;

use super::wire::Swap;
use super::{What, World};
use crate::clocks::{MILLI, Nanos, SECOND, nanos};
use crate::faults::Boundary;
use crate::node::{Life, Open, Vended, Write};
use crate::register::{Register, down};
use crate::setting::{Edge, Store, Theme};
use crate::upstream::index_of;

/// How long the driver waits for its register.
const PATIENCE: Nanos = 5 * SECOND;

impl World {
    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].life.is_some() {
            return;
        }
        if self.setting.store == Store::Memory {
            self.register = Register::new();
            self.laws.forget_the_record();
            if self.machines[self.nodes[node].machine].wall_ahead < 0 {
                self.laws.generations_may_repeat();
            }
        }
        self.lives += 1;
        let number = self.lives;
        let seed = self.dice.u64(..);
        self.nodes[node].life = Some(Life::new(number, &self.setting, self.boot_id(node), seed));
        self.tell(|| format!("node {node} starts as holder-{number}"));
        self.give_keys(node);
        if self.nodes[node].moves > 0 && self.now >= self.quiet_until {
            self.nodes[node].moves -= 1;
            let dooms = match self.setting.theme {
                // A write by each of them, for a clock that is further ahead by more is seen.
                Some(Theme::Creeping) => [
                    Boundary::Counted,
                    Boundary::SettleDone,
                    Boundary::SettleDone,
                ],
                _ => [Boundary::Loading, Boundary::StoreSent, Boundary::StoreDone],
            };
            self.nodes[node].doom = Some(dooms[self.dice.usize(0..dooms.len())]);
        } else if self.nodes[node].loops > 0 && self.now >= self.quiet_until {
            self.nodes[node].loops -= 1;
            let doom = Boundary::ALL[self.dice.usize(0..Boundary::ALL.len())];
            self.nodes[node].doom = Some(doom);
        }
    }

    pub(super) fn give_keys(&mut self, node: usize) {
        let (set, count) = self.nodes[node].keys;
        let fingerprint = format!("keys-{set}-{count}");
        self.give(node, Input::Keys { fingerprint, count });
    }

    pub(super) fn kill(&mut self, node: usize) {
        if self.nodes[node].life.take().is_none() {
            return;
        }
        self.tell(|| format!("node {node} dies"));
        self.last_death = self.now;
        self.nodes[node].died_at = self.now;
        self.nodes[node].doom = None;
        if self.nodes[node].moves > 0 {
            self.move_on(node);
        }
        let down = match self.dice.u8(0..8) {
            0 if self.setting.theme != Some(Theme::Creeping) => {
                self.dice.u64(0..self.setting.period())
            }
            1..4 => self.dice.u64(0..20 * SECOND),
            _ => self.dice.u64(20 * MILLI..SECOND),
        };
        self.push(down, What::Start(node));
    }

    /// Kills a node if this is where it was to die.
    pub(super) fn dies(&mut self, node: usize, boundary: Boundary) -> bool {
        if self.nodes[node].doom != Some(boundary) || self.now < self.quiet_until {
            return false;
        }
        self.tell(|| format!("node {node} comes to {boundary:?}"));
        self.coverage.crash(boundary, self.now);
        self.kill(node);
        true
    }

    /// One step of a keeper, with everything that must hold after it.
    pub(super) fn give(&mut self, node: usize, input: Input) {
        let now = self.stamp(node);
        let Some(life) = self.nodes[node].life.as_mut() else {
            return;
        };
        self.steps += 1;
        match &input {
            Input::Loaded(_) | Input::Swapped(_) => life.busy = false,
            Input::Changed => life.told = false,
            Input::Keys { count, .. } => life.keys = *count,
            Input::Minted(_) => {
                if let Some(open) = &mut life.open {
                    open.answered = true;
                }
            }
            _ => {}
        }
        if self.trace.is_some() {
            let said = brief_input(&input);
            self.tell(|| format!("node {node} ◂ {said}"));
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        let life = self.nodes[node].life.as_mut().expect("it lives");
        life.step(now, input, &mut outputs);
        for output in outputs.drain(..) {
            if self.nodes[node].life.is_none() {
                break;
            }
            self.carry_out(node, output);
        }
        self.outputs = outputs;
        let Some(life) = self.nodes[node].life.as_mut() else {
            return;
        };
        life.turn += 1;
        let (number, turn) = (life.number, life.turn);
        if let Some(wake) = life.wake(now).filter(|at| *at < Duration::MAX / 4) {
            let at = self.when(node, wake);
            self.push(at - self.now, What::Wake(node, number, turn));
        }
        self.look(node);
    }

    /// What callers see at this node now: laws 4 and 7.
    pub(super) fn look(&mut self, node: usize) {
        let now = self.stamp(node);
        let Some(vended) = self.nodes[node]
            .life
            .as_ref()
            .and_then(|life| life.vended.as_ref())
        else {
            return;
        };
        let issued = self.upstream.tokens[usize::try_from(vended.index).expect("an index")];
        if !vended.token.expired(now) {
            if !issued.revoked {
                self.laws.read(self.now, issued.end);
            }
            return;
        }
        let rules = &self.setting.rules;
        let due = issued.end.saturating_sub(nanos(rules.lead));
        // A clock that is set may end a token long before it is due; and each writer on another machine takes the skew off it.
        let shares_a_clock = self.setting.store != Store::Remote;
        let calm = self.trouble_until + 2 * self.setting.period() <= due && self.last_death <= due;
        assert!(
            self.now < due
                || !calm
                || !shares_a_clock
                || rules.revokes_previous
                || rules.budget.limit.get() < 4,
            "law 7: a token expired, though nothing but spent slots was in the way since it was due"
        );
    }

    pub(super) fn carry_out(&mut self, node: usize, output: Output) {
        match output {
            Output::Load => {
                let after = self.way();
                let life = self.nodes[node].life.as_mut().expect("it lives");
                life.busy = true;
                let number = life.number;
                self.push(after, What::Load(node, number));
                self.dies(node, Boundary::Loading);
            }
            Output::Swap { seen, next } => self.write(node, seen, next),
            Output::Mint { key, send_by } => {
                if self.dies(node, Boundary::BeforePost)
                    || self.setting.edge == Edge::PostBeforeSlot
                {
                    return;
                }
                self.send(node, key, send_by);
            }
            Output::Publish { token, suspect } => {
                if !self.dies(node, Boundary::BeforePublish) {
                    self.publish(node, token, suspect);
                }
            }
            Output::Reported(outcome) => {
                self.nodes[node].life.as_mut().expect("it lives").answer = Some(outcome);
            }
            Output::Note(note) => {
                assert!(
                    self.ever_lost
                        || note != Note::RecordLost
                        // What an older build takes the skew off again frees later here than there: it is brought back.
                        || self.nodes.iter().any(|node| node.old)
                        || self.setting.store == Store::Memory,
                    "false alarm: a record is taken for lost that never was"
                );
                if note == Note::NewRecord {
                    let now = self.now;
                    self.nodes[node].life.as_mut().expect("it lives").bore = Some(now);
                }
                self.tell(|| format!("node {node} says {note:?}"));
            }
            Output::Refreshed(_) | Output::Attempted { .. } => {}
        }
    }

    /// How long the way to the register takes.
    pub(super) fn way(&mut self) -> Nanos {
        if self.register.lag_until > self.now {
            return self.dice.u64(0..8 * SECOND);
        }
        self.dice.u64(MILLI / 10..20 * MILLI)
    }

    pub(super) fn write(&mut self, node: usize, seen: Option<Version>, next: Box<Record>) {
        let life = self.nodes[node].life.as_mut().expect("it lives");
        let write = life.write_of(&next);
        if self.dies(node, write.before()) {
            return;
        }
        let epoch = self.laws.epoch;
        let life = self.nodes[node].life.as_mut().expect("it lives");
        let (number, bore) = (life.number, life.bore);
        let ended = life.open.filter(|_| write == Write::Settle);
        let ends = ended.map(|open| (open.attempt, life.keys));
        life.busy = true;
        if write == Write::Reserve {
            life.open = Some(Open {
                attempt: next.generation,
                epoch,
                begun: self.now,
                reserved: None,
                posted: false,
                answered: false,
            });
        }
        if write == Write::Reserve && self.setting.edge == Edge::PostBeforeSlot {
            let send_by = next.written.at.boot + self.setting.rules.timeout;
            self.send(node, 0, send_by);
        }
        let after = self.way();
        let awaited = after < PATIENCE;
        if !awaited {
            let unknown = Input::Swapped(Swapped::Unknown(down()));
            self.push(PATIENCE, What::Give(node, number, Box::new(unknown)));
        }
        let swap = Swap {
            node,
            life: number,
            at: self.now,
            seen,
            next,
            write,
            ends,
            bore,
            orphan: self.dice.bool() && self.setting.store != Store::Memory,
            awaited,
        };
        self.push(after, What::Swap(Box::new(swap)));
        self.dies(node, write.sent());
    }

    /// A request leaves the keeper's hands.
    pub(super) fn send(&mut self, node: usize, key: u32, send_by: Duration) {
        let life = self.nodes[node].life.as_mut().expect("it lives");
        let open = life.open.as_mut().expect("an attempt is open");
        open.posted = true;
        let number = life.number;
        if let Some(length) = self.nodes[node].halts.take()
            && self.now >= self.quiet_until
        {
            self.tell(|| format!("node {node} stands still before it posts"));
            let until = self.now + length;
            self.nodes[node].frozen_until = until;
            self.trouble_until = self.trouble_until.max(until);
        }
        let after = self.dice.u64(MILLI / 10..20 * MILLI);
        self.push(after, What::Post(node, number, send_by, key));
    }

    pub(super) fn publish(&mut self, node: usize, token: Token, suspect: bool) {
        let index = index_of(&token.secret);
        self.tell(|| {
            format!(
                "node {node} vends {} (token {index}{})",
                token.generation,
                if suspect { ", suspect" } else { "" }
            )
        });
        assert!(
            !token.expired(self.stamp(node)),
            "law 4: published after its end"
        );
        let issued = self.upstream.tokens[usize::try_from(index).expect("an index")];
        let left = nanos(token.expires_at.left(self.stamp(node)));
        let drifts = self.machines[self.nodes[node].machine].ppm != 0;
        self.laws.promised(self.now, left, issued.end, drifts);
        let life = self.nodes[node].life.as_mut().expect("it lives");
        let before = life.vended.as_ref().map(|it| (&it.token, it.suspect));
        self.laws
            .published(before, &token, suspect, index, issued.epoch);
        life.vended = Some(Vended {
            token,
            suspect,
            index,
        });
    }

    pub(super) fn answer(&mut self, node: usize, number: u32, input: Input) {
        let after = self.dice.u64(MILLI / 10..5 * MILLI);
        self.push(after, What::Give(node, number, Box::new(input)));
    }
}

/// An input in a few words.
fn brief_input(input: &Input) -> String {
    match input {
        Input::Loaded(Ok(loaded)) => match &loaded.found {
            Some((record, _)) => format!(
                "loaded generation {}, revision {}",
                record.generation, record.revision
            ),
            None => "loaded nothing".into(),
        },
        Input::Swapped(Swapped::Done(_)) => "written".into(),
        Input::Swapped(outcome) => format!("not written: {outcome:?}"),
        other => format!("{other:?}"),
    }
}
