//! What a caller has open: its watches and waits, over all its connections.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Visitor;
use super::directory::Caller;
use crate::clock::Stamp;
use crate::token::Token;

/// How many are open, and how many may be.
pub(super) struct Streams {
    open: AtomicU32,
    most: Option<NonZeroU32>,
}

impl Streams {
    pub(super) fn new(most: Option<NonZeroU32>) -> Self {
        Self {
            open: AtomicU32::new(0),
            most,
        }
    }
}

/// One watch or wait. It is counted until it is dropped, however it ends.
pub struct Stream(Arc<Caller>);

impl Stream {
    /// One more, or how many there are already.
    pub(super) fn open(caller: &Arc<Caller>) -> Result<Self, NonZeroU32> {
        let Streams { open, most } = &caller.streams;
        let one_more = |open: u32| match most {
            Some(most) if open >= most.get() => None,
            _ => open.checked_add(1),
        };
        let counted = open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        match counted {
            Ok(_) => Ok(Self(Arc::clone(caller))),
            Err(open) => Err(NonZeroU32::new(open).unwrap_or(NonZeroU32::MIN)),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A watch: the tokens that are sent to its caller, one after the other. Its beginning and its end are told in the audit, both
/// or neither.
pub struct Watching {
    visitor: Arc<Visitor>,
    _stream: Stream,
    pub(super) opened: Stamp,
    pub(super) tokens: u64,
    pub(super) outcome: &'static str,
    /// Its beginning was told.
    pub(super) told: bool,
}

impl Watching {
    pub(super) fn new(visitor: Arc<Visitor>, stream: Stream, opened: Stamp, told: bool) -> Self {
        Self {
            visitor,
            _stream: stream,
            opened,
            tokens: 0,
            outcome: "hung_up",
            told,
        }
    }

    /// This token is sent to the caller.
    pub fn sent(&mut self, token: &Token) {
        self.tokens += 1;
        self.visitor.vended(token);
    }

    /// It ends, and not because the caller hung up.
    pub fn ended(&mut self, outcome: &'static str) {
        self.outcome = outcome;
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.visitor.watched(self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use prometheus::Registry;
    use tokio_util::sync::CancellationToken;

    use crate::caller::rule::{LOCAL, Named, Rights};
    use crate::caller::{Callers, Denial, Settings};
    use crate::listener::testing::{HandClock, LOOPBACK};
    use crate::listener::{Connection, Owner, Peer};

    fn callers(most: Option<u32>) -> Arc<Callers> {
        let named = [(LOCAL, 1000), ("orders", 1001)].map(|(name, uid)| Named {
            name: name.into(),
            uids: vec![uid],
            gids: Vec::new(),
            sans: Vec::new(),
            may: Rights::all(),
            rate: None,
            streams: most.and_then(NonZeroU32::new),
        });
        let settings = Settings {
            named: named.into(),
            ..Settings::default()
        };
        Callers::new(&settings, Arc::new(HandClock::new()), &Registry::new()).unwrap()
    }

    fn visitor(callers: &Arc<Callers>, peer: Peer, transport: &'static str) -> Arc<Visitor> {
        let connection = Connection {
            peer,
            names: None,
            drain: CancellationToken::new(),
        };
        Arc::new(callers.visitor(&connection, transport))
    }

    #[test]
    fn a_caller_has_so_many_open_over_all_its_connections_and_each_end_makes_room() {
        let callers = callers(Some(2));
        let first = visitor(&callers, LOOPBACK, "http");
        let second = visitor(&callers, LOOPBACK, "grpc");
        let too_many = || {
            Some(Denial::TooManyStreams {
                caller: LOCAL.into(),
                most: 2,
            })
        };
        let wait = first.waits().unwrap();
        let watch = second.watches().unwrap();
        assert_eq!(first.waits().err(), too_many());
        assert_eq!(second.watches().err(), too_many());
        // Another caller has its own.
        let owner = Owner {
            uid: 1001,
            gid: 1001,
        };
        let orders = visitor(&callers, Peer::Unix(owner), "grpc");
        let _its = (orders.watches().unwrap(), orders.waits().unwrap());
        drop(watch);
        let watch = first.watches().unwrap();
        assert_eq!(second.waits().err(), too_many());
        drop((wait, watch, first));
        let _both = (second.waits().unwrap(), second.waits().unwrap());
        assert_eq!(second.waits().err(), too_many());
    }

    #[test]
    fn without_a_bound_there_is_none() {
        let callers = callers(None);
        let visitor = visitor(&callers, LOOPBACK, "http");
        let all: Vec<_> = (0..10_000).map(|_| visitor.waits().unwrap()).collect();
        assert_eq!(all.len(), 10_000);
    }
}
