//! How many connections each peer has, over all listeners that share this.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Network, Owner, Peer};

/// Lets each peer have so many connections. What is told apart is a [`Network`], and a user on Unix sockets; peers on loopback cannot be
/// told apart, and have no such limit.
#[derive(Clone, Debug)]
pub struct Peers {
    most: usize,
    counts: Arc<Mutex<HashMap<Who, usize>>>,
}

/// A peer, as far as it can be told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Machine(Network),
    User(u32),
}

impl Who {
    fn of(peer: Peer) -> Option<Self> {
        match peer {
            Peer::Loopback(_) => None,
            Peer::Unix(Owner { uid, .. }) => Some(Self::User(uid)),
            Peer::Other(address) => Some(Self::Machine(address.ip().into())),
        }
    }
}

impl Peers {
    /// So many connections each.
    pub fn at_most(most: usize) -> Self {
        Self {
            most,
            counts: Arc::default(),
        }
    }

    /// A place for one more connection of this peer, given back when it is dropped; none if it has as many as it may.
    pub(super) fn enter(&self, peer: Peer) -> Option<Place> {
        let Some(who) = Who::of(peer) else {
            return Some(Place(None));
        };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(who).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place(Some((self.clone(), who))))
    }

    fn leave(&self, who: Who) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&who) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&who);
            }
        }
    }
}

/// A peer's place; by default one that nobody counts.
#[derive(Default)]
pub(super) struct Place(Option<(Peers, Who)>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((peers, who)) = &self.0 {
            peers.leave(*who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Peer {
        Peer::of(address.parse().unwrap())
    }

    #[test]
    fn each_peer_has_its_own_places_and_gives_them_back() {
        let peers = Peers::at_most(2);
        let unix = |uid| Peer::Unix(Owner { uid, gid: uid });
        for (one, same, other) in [
            (
                at("10.0.0.1:1"),
                at("[::ffff:10.0.0.1]:2"),
                at("10.0.0.2:1"),
            ),
            (
                at("[2001:db8::1]:1"),
                at("[2001:db8::ffff:1]:1"),
                at("[2001:db8:0:1::1]:1"),
            ),
            (unix(1000), unix(1000), unix(1001)),
        ] {
            let first = peers.enter(one).unwrap();
            let _second = peers.enter(same).unwrap();
            assert!(peers.enter(one).is_none(), "{one}");
            let _others = peers.enter(other).unwrap();
            drop(first);
            let _again = peers.enter(same).unwrap();
            assert!(peers.enter(one).is_none(), "{one}");
        }
        assert!(
            peers.counts.lock().unwrap().is_empty(),
            "nothing is kept of who has gone"
        );
    }

    #[test]
    fn loopback_has_no_limit_of_its_own() {
        let peers = Peers::at_most(1);
        let places: Vec<_> = (0..9).map(|_| peers.enter(at("127.0.0.1:1"))).collect();
        assert!(places.iter().all(Option::is_some));
        assert!(peers.counts.lock().unwrap().is_empty());
    }
}
