//! Who is at the other end of a connection.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus::Registry;

use super::audit::{self, Audit, Kind, Line};
use super::limit::{Pace, Peers};
use super::rule::{LOCAL, Named, OPERATOR, Rate, Rights, San};
use super::stream::Streams;
use super::{Refusals, Visitor};
use crate::clock::Clock;
use crate::listener::{Connection, Names, Owner, Peer};

/// What may be set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Who has a name; no two of them the same user, group or name of a certificate.
    pub named: Vec<Named>,
    /// How fast each other machine may ask, if there is a bound.
    pub peers: Option<Rate>,
    /// Where what happens is told.
    pub audit: audit::Settings,
}

/// Everybody who has a name, what each may do and has open, and what is counted of those who were turned away. One per process,
/// shared by all transports: a caller is the same whichever way it comes.
pub struct Callers {
    users: HashMap<u32, Arc<Caller>>,
    groups: HashMap<u32, Arc<Caller>>,
    certificates: Vec<(San, Arc<Caller>)>,
    local: Arc<Caller>,
    pub(super) peers: Option<Peers>,
    pub(super) audit: Audit,
    pub(super) clock: Arc<dyn Clock>,
    refusals: Refusals,
}

/// One caller, over all its connections.
pub(super) struct Caller {
    pub(super) name: Arc<str>,
    pub(super) may: Rights,
    pub(super) pace: Option<Pace>,
    pub(super) streams: Streams,
    /// The last generation that it was given.
    pub(super) vended: AtomicU64,
}

impl Caller {
    fn new(named: &Named) -> Self {
        Self {
            name: named.name.as_str().into(),
            may: named.may,
            pace: named.rate.map(Pace::new),
            streams: Streams::new(named.streams),
            vended: AtomicU64::new(0),
        }
    }
}

impl Callers {
    /// Knows these callers, and whoever has no name.
    ///
    /// # Errors
    /// If the audit has a file of its own that cannot be opened.
    pub fn new(
        settings: &Settings,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> io::Result<Arc<Self>> {
        let mut callers = Self {
            users: HashMap::new(),
            groups: HashMap::new(),
            certificates: Vec::new(),
            local: Arc::new(Caller::new(&nobodys())),
            peers: settings.peers.map(Peers::new),
            audit: Audit::open(&settings.audit, Arc::clone(&clock))?,
            clock,
            refusals: Refusals::register(registry),
        };
        for named in &settings.named {
            let caller = Arc::new(Caller::new(named));
            if named.name == LOCAL {
                callers.local = caller;
                continue;
            }
            let own = |id: &u32| (*id, Arc::clone(&caller));
            callers.users.extend(named.uids.iter().map(own));
            callers.groups.extend(named.gids.iter().map(own));
            let sans = named.sans.iter().cloned();
            let own = sans.map(|san| (san, Arc::clone(&caller)));
            callers.certificates.extend(own);
        }
        // Exact names come before those with a level left open; the order is otherwise that of the callers' names.
        callers.certificates.sort_by_key(|(san, _)| !san.is_exact());
        Ok(Arc::new(callers))
    }

    /// Whoever is at the other end of this connection, for as long as it lasts. `transport` is what is spoken on it.
    pub fn visitor(self: &Arc<Self>, connection: &Connection, transport: &'static str) -> Visitor {
        let caller = self.caller(connection);
        Visitor::new(
            Arc::clone(self),
            caller.cloned(),
            Some(connection),
            transport,
        )
    }

    /// No connection at all: whatever comes from there is turned away.
    pub fn nobody(self: &Arc<Self>) -> Visitor {
        Visitor::new(Arc::clone(self), None, None, "none")
    }

    /// Tells in the audit what somebody on an admin listener did, and what it came to.
    pub fn operated(&self, from: Peer, action: &'static str, outcome: &'static str) {
        let line = operators("operator", from, action, outcome);
        self.audit.tell(Kind::Operator, line);
    }

    /// Tells in the audit that somebody on an admin listener was not let do this.
    pub fn operator_refused(&self, from: Peer, action: &'static str, outcome: &'static str) {
        let line = operators("refused", from, action, outcome);
        self.audit.tell(Kind::Refusal, line);
    }

    /// What counts those who were turned away.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    fn caller(&self, connection: &Connection) -> Option<&Arc<Caller>> {
        match (&connection.names, connection.peer) {
            (Some(names), _) => self.certified(names),
            (None, Peer::Unix(owner)) => self.owner(owner),
            (None, Peer::Loopback(_)) => Some(&self.local),
            (None, Peer::Other(_)) => None,
        }
    }

    fn certified(&self, names: &Names) -> Option<&Arc<Caller>> {
        let found = self.certificates.iter().find(|(san, _)| {
            names.uris.iter().any(|uri| san.admits_uri(uri))
                || names.dns.iter().any(|name| san.admits_dns(name))
        });
        found.map(|(_, caller)| caller)
    }

    /// Where processes are told apart, one that nobody named is nobody's.
    fn owner(&self, owner: Owner) -> Option<&Arc<Caller>> {
        let found = self.users.get(&owner.uid);
        let found = found.or_else(|| self.groups.get(&owner.gid));
        let told_apart = !self.users.is_empty() || !self.groups.is_empty();
        found.or_else(|| (!told_apart).then_some(&self.local))
    }
}

fn operators(
    event: &'static str,
    from: Peer,
    action: &'static str,
    outcome: &'static str,
) -> Line<'static> {
    Line {
        event,
        caller: Some(OPERATOR),
        from: Some(from.to_string()),
        transport: "admin",
        action: Some(action),
        outcome: Some(outcome),
        ..Line::default()
    }
}

/// Whoever has no name, where the settings say nothing about them.
fn nobodys() -> Named {
    Named {
        name: LOCAL.to_owned(),
        uids: Vec::new(),
        gids: Vec::new(),
        sans: Vec::new(),
        may: Rights::all(),
        rate: None,
        streams: None,
    }
}
