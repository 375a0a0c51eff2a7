//! What callers had, measured from event to event: how long processes ran while it counted, and how long they vended a live token.

use bearerd::keeper::Input;

use super::{Ask, What, World};
use crate::clocks::{HOUR, Nanos, SECOND};

/// Callers of a node use the token so often, in the mean.
const CALLS_EVERY: Nanos = 5 * SECOND;

/// So long after a revocation callers are modelled: longer than any token from before it lives.
const CALLED_FOR: Nanos = 2 * HOUR;

/// A stretch of true time: from the first moment until just before the second.
pub type Stretch = (Nanos, Nanos);

/// The measuring. Everything between two events is known exactly, so nothing is sampled.
#[derive(Default)]
pub struct Watch {
    /// What counts, for each node: sorted, and apart from each other.
    pub counts: Vec<Vec<Stretch>>,
    /// When tokens were revoked, as it happened.
    pub revoked: Vec<Nanos>,
    /// When each node's process ran while it counted.
    pub ran: Vec<Vec<Stretch>>,
    /// When each of those vended no live token.
    pub dark: Vec<Vec<Stretch>>,
    /// The first stretch of each node that may still count.
    next: Vec<usize>,
}

impl Watch {
    pub fn new(counts: Vec<Vec<Stretch>>) -> Self {
        let nodes = counts.len();
        Self {
            counts,
            revoked: Vec::new(),
            ran: vec![Vec::new(); nodes],
            dark: vec![Vec::new(); nodes],
            next: vec![0; nodes],
        }
    }

    /// A node's process runs from the first moment until the second, and vends a live token until `lives`.
    fn passes(&mut self, node: usize, (from, until): Stretch, lives: Nanos) {
        let counts = &self.counts[node];
        let next = &mut self.next[node];
        while counts.get(*next).is_some_and(|it| it.1 <= from) {
            *next += 1;
        }
        for &(begin, end) in counts[*next..].iter().take_while(|it| it.0 < until) {
            let (begin, end) = (begin.max(from), end.min(until));
            append(&mut self.ran[node], (begin, end));
            append(&mut self.dark[node], (lives.max(begin), end));
        }
    }
}

/// Appends a stretch, if it is one, as a part of the last where they touch.
fn append(stretches: &mut Vec<Stretch>, (from, until): Stretch) {
    match stretches.last_mut() {
        _ if until <= from => {}
        Some(last) if last.1 == from => last.1 = until,
        _ => stretches.push((from, until)),
    }
}

impl World {
    /// Nothing happens until then.
    pub(super) fn pass(&mut self, until: Nanos) {
        let Some(mut watch) = self.watch.take() else {
            return;
        };
        for node in 0..self.nodes.len() {
            if self.nodes[node].life.is_some() {
                let from = self.stopped(node).unwrap_or(self.now).min(until);
                watch.passes(node, (from, until), self.lives_until(node));
            }
        }
        self.watch = Some(watch);
    }

    /// Until when what a node vends is live, at the issuer and by the node's own clocks.
    fn lives_until(&self, node: usize) -> Nanos {
        let life = self.nodes[node].life.as_ref();
        let Some(vended) = life.and_then(|life| life.vended.as_ref()) else {
            return 0;
        };
        let issued = self.upstream.tokens[usize::try_from(vended.index).expect("an index")];
        if issued.revoked {
            return 0;
        }
        let given_up = self.reaches(node, vended.token.expires_at);
        issued.end.min(given_up)
    }

    /// Strangers will spend from our account, at these moments.
    pub fn befallen_by(&mut self, strangers: &[Nanos]) {
        self.upstream.strangers.extend(strangers);
        let last = strangers.last().copied().unwrap_or_default();
        self.trouble_until = self.trouble_until.max(last);
    }

    /// Every token is revoked; from here on callers use what they get, again and again.
    pub(super) fn callers_see_the_revocation(&mut self) {
        let (now, until) = (self.now, self.now + CALLED_FOR);
        self.watch
            .as_mut()
            .expect("it is watched")
            .revoked
            .push(now);
        for node in 0..self.nodes.len() {
            let after = self.dice.u64(0..2 * CALLS_EVERY);
            self.push(after, What::Ask(node, Ask::Call(until)));
        }
    }

    /// A caller uses the token, and reports it if the issuer refuses it.
    pub(super) fn call(&mut self, node: usize, until: Nanos) {
        if self.now >= until {
            return;
        }
        let after = self.dice.u64(0..2 * CALLS_EVERY);
        self.push(after, What::Ask(node, Ask::Call(until)));
        let now = self.stamp(node);
        let life = self.nodes[node].life.as_ref();
        let Some(vended) = life.and_then(|life| life.vends(now)) else {
            return;
        };
        if self.upstream.tokens[usize::try_from(vended.index).expect("an index")].revoked {
            let generation = vended.token.generation;
            self.give(node, Input::Report(generation));
        }
    }
}
