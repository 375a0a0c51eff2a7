//! Who is at the other end of a connection.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus::Registry;

use super::audit::{self, Audit, Line};
use super::limit::{Pace, Peers};
use super::rule::{LOCAL, Named, OPERATOR, Rate, Rights, San};
use super::share::{Kind, Share};
use super::stream::Streams;
use super::{Denial, Refusals, Visitor};
use crate::clock::Clock;
use crate::listener::{Connection, Names, Owner, Peer};

/// What may be set.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Who has a name; no two of them the same user, group or name of a certificate.
    pub named: Vec<Named>,
    /// How many watches and waits they who have no name may have open together, where none of those above says so.
    pub unnamed_streams: Option<NonZeroU32>,
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
    /// How much of the audit is its.
    pub(super) share: Arc<Share>,
    /// The last generation that it was given.
    pub(super) vended: AtomicU64,
}

impl Caller {
    fn new(named: &Named, audit: &mut Audit) -> Self {
        let name: Arc<str> = named.name.as_str().into();
        Self {
            share: audit.share(&name),
            name,
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
        let mut audit = Audit::open(&settings.audit, Arc::clone(&clock))?;
        let mut callers = Self {
            users: HashMap::new(),
            groups: HashMap::new(),
            certificates: Vec::new(),
            local: Arc::new(Caller::new(&nobodys(settings.unnamed_streams), &mut audit)),
            peers: settings.peers.map(Peers::new),
            audit,
            clock,
            refusals: Refusals::register(registry),
        };
        for named in &settings.named {
            if named.name == LOCAL {
                let streams = named.streams.or(settings.unnamed_streams);
                let local = Named {
                    streams,
                    ..named.clone()
                };
                callers.local = Arc::new(Caller::new(&local, &mut callers.audit));
                continue;
            }
            let caller = Arc::new(Caller::new(named, &mut callers.audit));
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
        let share = &self.audit.operators;
        self.audit.tell(share, Kind::Operator, Some(from), line);
    }

    /// Tells in the audit that somebody on an admin listener was not let do this.
    pub fn operator_refused(&self, from: Peer, action: &'static str, outcome: &'static str) {
        let line = operators("refused", from, action, outcome);
        let share = &self.audit.operators;
        self.audit.tell(share, Kind::Refusal, Some(from), line);
    }

    /// Counts and tells that somebody who is no operator has asked on an admin listener.
    pub fn no_operator(&self, from: Peer) {
        let denial = Denial::UnknownCaller;
        self.refusals.count_denied(&denial);
        let line = Line {
            caller: None,
            ..operators("refused", from, "any", denial.word())
        };
        let share = &self.audit.strangers;
        self.audit.tell(share, Kind::Refusal, Some(from), line);
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

    /// Where processes are told apart, one that nobody named is nobody's, and so is one that has no number here.
    fn owner(&self, owner: Owner) -> Option<&Arc<Caller>> {
        let found = owner.user().and_then(|uid| self.users.get(&uid));
        let found = found.or_else(|| self.groups.get(&owner.group()?));
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
        transport: Some("admin"),
        action: Some(action),
        outcome: Some(outcome),
        ..Line::default()
    }
}

/// Whoever has no name, where the settings say nothing about them.
fn nobodys(streams: Option<NonZeroU32>) -> Named {
    Named {
        name: LOCAL.to_owned(),
        uids: Vec::new(),
        gids: Vec::new(),
        sans: Vec::new(),
        may: Rights::all(),
        rate: None,
        streams,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use tokio_util::sync::CancellationToken;

    use crate::caller::Denial;
    use crate::caller::rule::Right;
    use crate::listener::testing::{HandClock, LOOPBACK, metric};

    fn named(name: &str, uids: &[u32], gids: &[u32], sans: &[&str]) -> Named {
        Named {
            name: name.into(),
            uids: uids.to_vec(),
            gids: gids.to_vec(),
            sans: sans.iter().map(|san| san.parse().unwrap()).collect(),
            ..nobodys(None)
        }
    }

    fn open(named: Vec<Named>, registry: &Registry) -> Arc<Callers> {
        let settings = Settings {
            named,
            ..Settings::default()
        };
        Callers::new(&settings, Arc::new(HandClock::new()), registry).unwrap()
    }

    fn connection(peer: Peer, names: Option<Names>) -> Connection {
        Connection {
            peer,
            names: names.map(Arc::new),
            drain: CancellationToken::new(),
        }
    }

    fn who(callers: &Arc<Callers>, peer: Peer, names: Option<Names>) -> Option<&str> {
        callers.caller(&connection(peer, names)).map(|it| &*it.name)
    }

    fn owner(uid: u32, gid: u32) -> Peer {
        Peer::Unix(Owner { uid, gid })
    }

    fn other() -> Peer {
        Peer::Other("10.1.2.3:4".parse().unwrap())
    }

    fn names(uris: &[&str], dns: &[&str]) -> Option<Names> {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Some(Names {
            uris: owned(uris),
            dns: owned(dns),
        })
    }

    #[test]
    fn where_nobody_is_named_this_machine_is_local_and_others_are_nobody() {
        let callers = open(Vec::new(), &Registry::new());
        for peer in [LOOPBACK, owner(0, 0), owner(1000, 1000)] {
            assert_eq!(who(&callers, peer, None), Some(LOCAL));
        }
        assert_eq!(who(&callers, other(), None), None);
        // A certificate that no rule names is nobody's, wherever it comes from.
        for peer in [LOOPBACK, owner(0, 0), other()] {
            assert_eq!(who(&callers, peer, names(&["spiffe://prod/a"], &[])), None);
        }
    }

    #[test]
    fn a_process_is_known_by_its_user_and_then_by_its_group() {
        let all = vec![
            named("billing", &[1000], &[50], &[]),
            named("orders", &[1001], &[60], &[]),
        ];
        let callers = open(all, &Registry::new());
        for (peer, name) in [
            (owner(1000, 1000), Some("billing")),
            (owner(1001, 1001), Some("orders")),
            (owner(7, 50), Some("billing")),
            (owner(1001, 50), Some("orders")),
            (owner(7, 7), None),
            (owner(0, 0), None),
            (LOOPBACK, Some(LOCAL)),
        ] {
            assert_eq!(who(&callers, peer, None), name, "{peer}");
        }
    }

    /// The settings refuse these numbers; here they would not help either.
    #[test]
    fn a_process_whose_numbers_are_not_mapped_is_no_named_caller() {
        let number = |kind| {
            let file = format!("/proc/sys/kernel/overflow{kind}");
            let text = std::fs::read_to_string(file).unwrap_or_default();
            text.trim().parse().unwrap_or(65_534)
        };
        let (user, group) = (number("uid"), number("gid"));
        let orders = named("orders", &[user, 0], &[group, 50], &[]);
        let callers = open(vec![orders], &Registry::new());
        for (peer, name) in [
            (owner(user, group), None),
            (owner(user, 7), None),
            (owner(7, group), None),
            (owner(u32::MAX, u32::MAX), None),
            // One of the two is mapped, and so is root of the namespace.
            (owner(user, 50), Some("orders")),
            (owner(0, group), Some("orders")),
        ] {
            assert_eq!(who(&callers, peer, None), name, "{peer}");
        }
        // Where no rule is about users, the mode of the socket decides, as for everybody.
        let nobody = open(Vec::new(), &Registry::new());
        assert_eq!(who(&nobody, owner(user, group), None), Some(LOCAL));
    }

    #[test]
    fn callers_by_certificate_alone_leave_sockets_to_everybody() {
        let all = vec![named("orders", &[], &[], &["orders.shop.svc"])];
        let callers = open(all, &Registry::new());
        assert_eq!(who(&callers, owner(7, 7), None), Some(LOCAL));
    }

    #[test]
    fn a_certificate_goes_before_its_place_and_an_exact_name_before_an_open_one() {
        let all = vec![
            named("any", &[], &[], &["*.shop.svc", "spiffe://prod/ns/*/sa/a"]),
            named("orders", &[1000], &[], &["orders.shop.svc"]),
            named("payments", &[], &[], &["spiffe://prod/ns/pay/sa/a"]),
        ];
        let callers = open(all, &Registry::new());
        for (names, name) in [
            (names(&[], &["Orders.shop.svc"]), Some("orders")),
            (names(&[], &["billing.shop.svc"]), Some("any")),
            (names(&["spiffe://prod/ns/pay/sa/a"], &[]), Some("payments")),
            (names(&["spiffe://prod/ns/shop/sa/a"], &[]), Some("any")),
            (
                names(&["spiffe://prod/ns/shop/sa/a"], &["orders.shop.svc"]),
                Some("orders"),
            ),
            (names(&["urn:x"], &["x", "billing.shop.svc"]), Some("any")),
            (names(&["spiffe://dev/ns/shop/sa/a"], &["shop.svc"]), None),
            (names(&[], &[]), None),
        ] {
            for peer in [other(), LOOPBACK, owner(1000, 1000)] {
                assert_eq!(who(&callers, peer, names.clone()), name, "{names:?}");
            }
        }
    }

    #[test]
    fn what_is_refused_is_counted_by_its_reason() {
        let registry = Registry::new();
        let mut orders = named("orders", &[1000], &[], &[]);
        orders.may = [Right::Vend].into_iter().collect();
        let callers = open(vec![orders], &registry);
        let visitor = |peer| callers.visitor(&connection(peer, None), "http");
        let orders = visitor(owner(1000, 1000));
        assert_eq!((orders.known(), orders.may(Right::Vend)), (Ok(()), Ok(())));
        let lacking = Denial::NotPermitted {
            caller: "orders".into(),
            right: Right::Report,
        };
        assert_eq!(orders.may(Right::Report), Err(lacking));
        for nobody in [visitor(owner(7, 7)), visitor(other()), callers.nobody()] {
            assert_eq!(nobody.known(), Err(Denial::UnknownCaller));
            assert_eq!(nobody.may(Right::Vend), Err(Denial::UnknownCaller));
            assert_eq!(nobody.paced(), Err(Denial::UnknownCaller));
            assert_eq!(nobody.waits().err(), Some(Denial::UnknownCaller));
        }
        let counted = |reason: &str| {
            let line = format!("bearerd_callers_refused_total{{reason=\"{reason}\"}}");
            metric(&registry, &line)
        };
        assert_eq!(
            (counted("not_permitted"), counted("unknown_caller")),
            (1.0, 12.0)
        );
    }

    #[test]
    fn other_machines_meet_their_own_limit_first_and_this_one_meets_none_of_theirs() {
        let mut orders = named("orders", &[], &[], &["orders.shop.svc"]);
        let rate = |per_second: u32, burst: u32| Rate {
            per_second: per_second.try_into().unwrap(),
            burst: burst.try_into().unwrap(),
        };
        orders.rate = Some(rate(1, 50));
        let settings = Settings {
            named: vec![orders],
            unnamed_streams: None,
            peers: Some(rate(1, 10)),
            ..Settings::default()
        };
        let clock = Arc::new(HandClock::new());
        let callers = Callers::new(&settings, clock, &Registry::new()).unwrap();
        let from =
            |peer| callers.visitor(&connection(peer, names(&[], &["orders.shop.svc"])), "http");
        // With one a second, each of these ends, however slow the machine is.
        let until_refused = |visitor: Visitor| {
            let mut asked = std::iter::repeat_with(|| visitor.paced());
            asked.find_map(Result::err)
        };
        let limited = |caller: Option<&str>| {
            Some(Denial::RateLimited {
                caller: caller.map(Into::into),
                retry_after: 1,
            })
        };
        assert_eq!(until_refused(from(other())), limited(None));
        let third: Peer = Peer::Other("10.1.2.4:4".parse().unwrap());
        assert_eq!(until_refused(from(third)), limited(None));
        assert_eq!(until_refused(from(LOOPBACK)), limited(Some("orders")));
        assert_eq!(
            until_refused(from(third)).map(|it| it.word()),
            Some("rate_limited")
        );
        // Whoever has no name has no bound here.
        let local = callers.visitor(&connection(LOOPBACK, None), "http");
        assert!((0..10_000).all(|_| local.paced().is_ok()));
    }
}
