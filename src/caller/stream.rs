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

/// A watch: the tokens that are sent to its caller, one after the other. Its beginning and its end are told in the audit.
pub struct Watching {
    visitor: Arc<Visitor>,
    _stream: Stream,
    pub(super) opened: Stamp,
    pub(super) tokens: u64,
    pub(super) outcome: &'static str,
}

impl Watching {
    pub(super) fn new(visitor: Arc<Visitor>, stream: Stream, opened: Stamp) -> Self {
        Self {
            visitor,
            _stream: stream,
            opened,
            tokens: 0,
            outcome: "hung_up",
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
