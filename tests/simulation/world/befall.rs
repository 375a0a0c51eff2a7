//! What a fault does to a world.

use bearerd::keeper::Input;
use bearerd::record::{Absent, Record};
use bearerd::token::Generation;
use bearerd::vend::ReportOutcome;

use super::{Ask, What, World};
use crate::clocks::{DAY, HOUR, MILLI, Nanos, SECOND, nanos};
use crate::faults::{Boundary, Fault, Kind};
use crate::node::Node;
use crate::register::{Content, Unknown};
use crate::setting::{Edge, Store, Theme};

/// So many questions are a flood.
const FLOOD: u64 = 20;

impl World {
    /// Lets a fault of the plan befall the world, or later if nothing may be disturbed now.
    pub(super) fn befall(&mut self, index: usize) {
        let fault = self.plan[index];
        if self.now < self.quiet_until && !fault.kind.is_weather() {
            return self.push(self.quiet_until - self.now, What::Fault(index));
        }
        let node = fault.node % self.nodes.len();
        self.tell(|| {
            format!(
                "fault: {:?} at node {node}, at work for {} s, to die at {:?}",
                fault.kind,
                fault.length / SECOND,
                fault.doom
            )
        });
        let until = self.now + fault.length;
        let window = nanos(self.setting.rules.budget.window);
        self.coverage.fault(fault.kind, until + window);
        if !fault.kind.only_burns() {
            self.trouble_until = self.trouble_until.max(until);
        }
        if fault.kind.cuts_tokens_short() {
            self.clocks_right_since = self.clocks_right_since.max(until + window);
        }
        if fault.kind.is_weather() {
            let once = fault.extra.is_multiple_of(4);
            self.upstream.change(fault.kind, (!once).then_some(until));
        } else {
            self.befall_us(&fault, node, until);
        }
        if fault.doom.is_some() && self.now >= self.quiet_until {
            self.nodes[node].doom = fault.doom;
        }
    }

    fn befall_us(&mut self, fault: &Fault, node: usize, until: Nanos) {
        let machine = self.nodes[node].machine;
        match fault.kind {
            Kind::Revoked => {
                self.upstream.revoke();
                if self.watch.is_some() {
                    self.callers_see_the_revocation();
                } else {
                    self.ask_all(Ask::Report, 60 * SECOND);
                }
            }
            Kind::Partition => self.nodes[node].cut_until = until,
            Kind::RegisterDown => self.register.down_until = until,
            Kind::Lag => self.register.lag_until = until,
            Kind::Full => self.register.full_until = until,
            Kind::UnknownWrite => {
                let fates = [Unknown::Done, Unknown::NotDone, Unknown::Late];
                self.register.unknown = Some(fates[(fault.extra % 3) as usize]);
            }
            Kind::Conflict => self.rewrite(),
            Kind::Lost | Kind::Torn | Kind::Stale => self.lose_the_record(fault),
            Kind::PowerLoss | Kind::Reboot => self.go_down(fault, machine),
            Kind::StepForward | Kind::StepBack => self.step_the_wall(fault, node),
            Kind::Drift => {
                let ppm = i64::try_from(fault.extra % 1001).expect("it is small") - 500;
                self.machines[machine].drift(self.now, ppm);
            }
            Kind::Suspend => self.machines[machine].stopped_until = until,
            Kind::Freeze if fault.extra.is_multiple_of(2) => {
                self.nodes[node].halts = Some(fault.length);
            }
            Kind::Freeze => self.nodes[node].frozen_until = until,
            Kind::CrashLoop => {
                self.nodes[node].loops = 3 + (fault.extra % 12) as u32;
                let doom = Boundary::ALL[(fault.extra / 12) as usize % Boundary::ALL.len()];
                self.nodes[node].doom = Some(doom);
            }
            Kind::Namespaces => self.start_in_namespaces(fault, node),
            Kind::Checkpoint => self.hide_the_clock(fault, node, until),
            Kind::OtherVersion => {
                self.nodes[node].old = !self.nodes[node].old;
                self.kill(node);
            }
            Kind::LongerWindow => self.lengthen_the_window(),
            Kind::Impossible => self.write_an_impossible_end(),
            Kind::Report => self.push(0, What::Ask(node, Ask::Report)),
            Kind::Flood => self.flood(fault.length),
            Kind::NewKeys => {
                let keys = ((fault.extra % 3) as u8, 1 + (fault.extra / 3 % 4) as u32);
                for node in &mut self.nodes {
                    node.keys = keys;
                }
                // A fleet may be in the middle of that for long, each process with the keys that it knows.
                let slowly = (fault.extra / 12).is_multiple_of(2);
                let within = if slowly { fault.length } else { 0 };
                self.ask_all(Ask::Keys, within.max(10 * SECOND));
            }
            _ => unreachable!("the weather is another matter"),
        }
    }

    fn ask_all(&mut self, ask: Ask, within: Nanos) {
        for node in 0..self.nodes.len() {
            let after = self.dice.u64(MILLI..within);
            self.push(after, What::Ask(node, ask));
        }
    }

    fn flood(&mut self, length: Nanos) {
        for _ in 0..FLOOD {
            let node = self.dice.usize(0..self.nodes.len());
            let ask = match self.dice.u8(0..4) {
                // Reports may take some of the slots alone.
                _ if self.setting.theme.is_some() => Ask::Refresh,
                0 => Ask::Refresh,
                1 => Ask::StaleReport,
                _ => Ask::Report,
            };
            let after = self.dice.u64(0..length + SECOND);
            self.push(after, What::Ask(node, ask));
        }
    }

    /// A caller, an operator or the driver asks something of a node.
    pub(super) fn ask(&mut self, node: usize, ask: Ask) {
        let now = self.stamp(node);
        let Some(life) = &self.nodes[node].life else {
            return;
        };
        let vended = life.vends(now).map(|it| it.token.generation);
        match ask {
            Ask::Call(until) => self.call(node, until),
            Ask::Tick => self.give(node, Input::Tick),
            Ask::Keys => self.give_keys(node),
            Ask::Refresh => self.give(node, Input::Refresh),
            Ask::Report => {
                if let Some(generation) = vended {
                    self.give(node, Input::Report(generation));
                }
            }
            Ask::StaleReport => {
                let other = vended.map_or(1, |it| it.0.saturating_sub(1 + self.dice.u64(0..3)));
                self.give(node, Input::Report(Generation(other)));
                let answer = self.nodes[node]
                    .life
                    .as_mut()
                    .and_then(|life| life.answer.take());
                assert!(
                    matches!(answer, None | Some(ReportOutcome::StaleGeneration)),
                    "law 8: a report of generation {other} is {answer:?}, while {vended:?} is vended"
                );
            }
        }
    }

    /// Somebody else writes the record as it is.
    fn rewrite(&mut self) {
        if let Content::Kept(record) = &self.register.content {
            let mut again = record.clone();
            again.revision += 1;
            let (wall_ahead, hidden) = (self.register.wall_ahead, self.register.hidden);
            self.register.put(again, wall_ahead, hidden);
            self.tell_others(usize::MAX);
        }
    }

    /// True if everybody alive holds what is in the register, and nothing is on its way: then its loss costs nothing.
    fn all_hold_the_record(&self) -> bool {
        let version = self.register.version();
        let register = &self.register;
        let serves = register
            .down_until
            .max(register.lag_until)
            .max(register.full_until)
            <= self.now;
        let holds = |node: &crate::node::Node| {
            let life = node.life.as_ref();
            let at_rest =
                life.is_some_and(|it| !it.busy && it.open.is_none() && it.seen == version);
            let moves = node.frozen_until.max(node.cut_until) <= self.now;
            at_rest && moves && self.machines[node.machine].stopped_until <= self.now
        };
        serves
            && register.unknown.is_none()
            && register.record().is_some()
            && self.nodes.iter().all(holds)
    }

    /// The record is deleted, torn or replaced by an older copy. Where everybody holds it, it is to be brought back as it was, and
    /// they are left in peace for as long as that takes. Otherwise what was known is lost, and the budget's windows begin anew.
    fn lose_the_record(&mut self, fault: &Fault) {
        if self.register.record().is_none() {
            return;
        }
        let held = self.all_hold_the_record();
        let nobody_lives = self.nodes.iter().all(|node| node.life.is_none());
        self.ever_lost = true;
        let stale = fault.kind == Kind::Stale;
        if stale && self.clocks_are_hidden() {
            return;
        }
        if stale {
            // A wall clock that was set since, and a boot since: then wall clocks do not agree across that boot.
            let boot_id = self.boot_id(0);
            let machine = &self.machines[0];
            let agrees = |copy: &Record, ahead: i64| {
                let off = ahead.abs_diff(machine.wall_ahead);
                self.setting.store == Store::Remote
                    || copy.written.boot_id == boot_id
                    || off <= self.setting.skew()
            };
            if !self.register.bring_back((fault.extra / 8) as usize, agrees) {
                return;
            }
        } else {
            self.register.lose(fault.kind == Kind::Torn);
        }
        if held {
            self.quiet_until = self.now + 2 * nanos(self.setting.rules.claim()) + 5 * SECOND;
            for node in &mut self.nodes {
                (node.doom, node.loops) = (None, 0);
            }
        } else if !stale && self.setting.absent == Absent::Wait && nobody_lives {
            // Whoever starts waits for a whole period: law 1 goes on as if nothing were lost.
            self.laws.forget_the_record();
            self.laws.generations_may_repeat();
        } else {
            // A wall clock that was set back may let a new record begin below the old one's generations.
            self.laws.lost(stale || self.setting.store == Store::File);
        }
        self.tell(|| {
            format!(
                "the record is lost, and {}",
                if held { "held" } else { "forgotten" }
            )
        });
        self.tell_others(usize::MAX);
    }

    /// A machine goes down with all that runs on it, and comes up with a wall clock that may be off by the skew, or far behind.
    fn go_down(&mut self, fault: &Fault, machine: usize) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].machine == machine {
                self.kill(node);
            }
        }
        if fault.kind == Kind::PowerLoss && self.setting.edge == Edge::NoSync {
            self.register.lose_the_unsynced();
            self.ever_lost = true;
            // So that law 1 speaks, and not what a record alone can know.
            self.laws.forget_the_record();
            self.laws.generations_may_repeat();
        }
        let skew = i64::try_from(self.setting.skew()).expect("a skew is short");
        let own = self.setting.store == Store::Remote;
        let wall_ahead = if own {
            self.dice.i64(-skew / 2..=skew / 2)
        } else if fault.kind == Kind::Reboot && fault.extra.is_multiple_of(4) {
            self.register.wall_ahead - i64::try_from(30 * DAY).expect("it fits")
        } else {
            // Wall clocks agree across all boots, and not only from one to the next.
            if (self.register.wall_ahead - self.wall_base).abs() > skew / 2 {
                self.wall_base = self.register.wall_ahead;
            }
            self.wall_base + self.dice.i64(-skew * 47 / 100..=skew * 47 / 100)
        };
        for node in &mut self.nodes {
            node.hidden &= node.machine != machine;
        }
        let down_for = fault.length.min(self.setting.period() / 2) + SECOND;
        self.machines[machine].reboot(self.now, down_for, wall_ahead);
    }

    /// The wall clock is set. Where nodes have machines of their own, their clocks go on agreeing.
    fn step_the_wall(&mut self, fault: &Fault, node: usize) {
        let machine = self.nodes[node].machine;
        let forward = fault.kind == Kind::StepForward;
        if self.setting.store == Store::Remote {
            let half = i64::try_from(self.setting.skew()).expect("a skew is short") / 2;
            let to = self.dice.i64(0..=half);
            self.machines[machine].wall_ahead = if forward { to } else { -to };
        } else {
            // A clock that is set between a reboot and the first look at the record disagrees across the reboot.
            let ids: Vec<_> = (0..self.nodes.len())
                .map(|node| self.boot_id(node))
                .collect();
            let record = self.register.record();
            if record.is_some_and(|it| ids.iter().any(|id| *id != it.written.boot_id))
                || self.nodes.iter().any(|node| node.moves > 0)
                || self.clocks_are_hidden()
            {
                return;
            }
            let by = i64::try_from(fault.extra % (60 * HOUR)).expect("it fits");
            self.machines[machine].wall_ahead += if forward { by } else { -by };
        }
        for other in 0..self.nodes.len() {
            if self.nodes[other].machine == machine {
                let after = self.dice.u64(0..SECOND);
                self.push(after, What::Ask(other, Ask::Tick));
            }
        }
    }

    /// Some process's boot clock is another's, and its kernel's files do not say so.
    fn clocks_are_hidden(&self) -> bool {
        self.register.hidden || self.nodes.iter().any(|node| node.hidden)
    }

    /// The next starts of a node are in other time namespaces: in two by turns, or in ones that are each a little further ahead.
    fn start_in_namespaces(&mut self, fault: &Fault, node: usize) {
        let machine = &self.machines[self.nodes[node].machine];
        let off = (machine.wall_ahead - self.register.wall_ahead).unsigned_abs();
        if self.nodes[node].hidden || off > self.setting.skew() {
            return;
        }
        self.nodes[node].moves = 10 + (fault.extra % 50) as u32;
        self.kill(node);
    }

    /// Another time namespace than the last.
    pub(super) fn move_on(&mut self, node: usize) {
        let skew = self.setting.skew();
        let far = [HOUR, DAY, 2 * DAY][node % 3];
        let creeping = self.setting.theme == Some(Theme::Creeping);
        let Node { shift, moves, .. } = &mut self.nodes[node];
        *shift = match (*moves % 5, *shift) {
            (_, shift) if creeping => shift + self.dice.u64(skew / 2..skew * 19 / 20),
            (0, shift) if shift < 10 * skew => shift + self.dice.u64(0..skew * 9 / 10 + 1),
            (_, 0) => far,
            _ => 0,
        };
    }

    /// A process starts with a boot clock that is ahead, as after a restored checkpoint; wall clocks agree meanwhile.
    fn hide_the_clock(&mut self, fault: &Fault, node: usize, until: Nanos) {
        let machine = &self.machines[self.nodes[node].machine];
        let off = (machine.wall_ahead - self.register.wall_ahead).unsigned_abs();
        let moved = self
            .nodes
            .iter()
            .any(|node| node.moves > 0 || node.shift > 0);
        if off > self.setting.skew() / 4 || moved || self.clocks_are_hidden() || machine.ppm != 0 {
            return;
        }
        self.nodes[node].shift = HOUR + fault.extra % (2 * DAY);
        self.nodes[node].hidden = true;
        self.kill(node);
        self.push(until - self.now, What::Unhide(node));
    }

    /// The next process has its machine's boot clock again.
    pub(super) fn unhide(&mut self, node: usize) {
        if self.nodes[node].hidden {
            (self.nodes[node].shift, self.nodes[node].hidden) = (0, false);
            if self.nodes[node].life.is_some() {
                self.kill(node);
            }
        }
    }

    /// Once in a world: a quarter more, for everybody at once.
    fn lengthen_the_window(&mut self) {
        let mut rules = self.setting.rules.clone();
        rules.budget.window += rules.budget.window / 4;
        rules.budget.margin = rules.budget.window / 15;
        rules.lead = rules.lead.max(rules.budget.period());
        if self.lengthened || rules.lead >= rules.lifetime {
            return;
        }
        self.lengthened = true;
        self.upstream.lengthen(nanos(rules.budget.window));
        self.laws.lengthen(rules.clone(), self.now);
        self.setting.rules = rules;
        for node in 0..self.nodes.len() {
            self.kill(node);
        }
    }

    /// The boot times of the token are those of another clock, so far ahead that no token lives for as long.
    fn write_an_impossible_end(&mut self) {
        let far = 3 * self.setting.rules.lifetime;
        let ahead = |node: &Node| self.machines[node.machine].wall_ahead;
        let off = |node: &Node| (ahead(node) - self.register.wall_ahead).unsigned_abs();
        let agree = self
            .nodes
            .iter()
            .all(|node| off(node) <= self.setting.skew());
        if self.clocks_are_hidden() || !agree {
            return;
        }
        let Content::Kept(record) = &self.register.content else {
            return;
        };
        let mut next = record.clone();
        let Some(token) = &mut next.token else { return };
        for at in [
            &mut token.issued_at,
            &mut token.refresh_at,
            &mut token.expires_at,
        ] {
            at.boot += far;
        }
        next.revision += 1;
        let wall_ahead = self.register.wall_ahead;
        self.register.put(next, wall_ahead, true);
        self.tell_others(usize::MAX);
    }

    /// Everything is well again. Then every node must come to a token.
    pub fn heal(&mut self) {
        let now = self.now;
        (self.register.down_until, self.register.full_until) = (now, now);
        (self.register.lag_until, self.register.unknown) = (now, None);
        self.upstream.clear();
        for machine in &mut self.machines {
            machine.stopped_until = machine.stopped_until.min(now + SECOND);
        }
        for node in 0..self.nodes.len() {
            let healed = &mut self.nodes[node];
            (healed.frozen_until, healed.cut_until) = (now, now);
            (healed.doom, healed.loops, healed.keys) = (None, 0, (9, 1));
            healed.halts = None;
            (healed.moves, healed.old) = (0, false);
            self.unhide(node);
            if self.nodes[node].life.is_none() {
                self.push(2 * SECOND, What::Start(node));
            }
            self.push(5 * SECOND, What::Ask(node, Ask::Keys));
        }
        let until = now + 3 * self.setting.period();
        self.run(until);
        for node in 0..self.nodes.len() {
            let life = self.nodes[node]
                .life
                .as_ref()
                .expect("nothing dies any more");
            assert!(
                life.vends(self.stamp(node)).is_some(),
                "all is well, and node {node} never comes to a token: {:#?}",
                life.keeper
            );
        }
    }
}
