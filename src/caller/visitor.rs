//! The other end of one connection: who it is, and what it is let do.

use std::sync::Arc;

use super::Denial;
use super::directory::{Caller, Callers};
use super::guard::Refusal;
use super::rule::Right;
use crate::listener::{Connection, Peer};

/// Whoever is at the other end of a connection. Found once, asked for each request.
pub struct Visitor {
    callers: Arc<Callers>,
    /// None if no rule names it.
    caller: Option<Arc<Caller>>,
    /// None where there is no connection.
    peer: Option<Peer>,
    transport: &'static str,
}

impl Visitor {
    pub(super) fn new(
        callers: Arc<Callers>,
        caller: Option<Arc<Caller>>,
        connection: Option<&Connection>,
        transport: &'static str,
    ) -> Self {
        Self {
            callers,
            caller,
            peer: connection.map(|it| it.peer),
            transport,
        }
    }

    /// Its request was turned away at the door.
    pub fn refused(&self, refusal: Refusal) {
        self.callers.refusals().count(refusal);
    }

    /// Turns away whom no rule names.
    ///
    /// # Errors
    /// [`Denial::UnknownCaller`], which is counted.
    pub fn known(&self) -> Result<(), Denial> {
        match self.caller {
            Some(_) => Ok(()),
            None => Err(self.denied(Denial::UnknownCaller)),
        }
    }

    /// Turns away whoever may not do this.
    ///
    /// # Errors
    /// [`Denial::NotPermitted`], or [`Denial::UnknownCaller`]; each is counted.
    pub fn may(&self, right: Right) -> Result<(), Denial> {
        let Some(caller) = &self.caller else {
            return Err(self.denied(Denial::UnknownCaller));
        };
        if caller.may.include(right) {
            return Ok(());
        }
        let caller = Arc::clone(&caller.name);
        Err(self.denied(Denial::NotPermitted { caller, right }))
    }

    #[cold]
    fn denied(&self, denial: Denial) -> Denial {
        self.callers.refusals().count_denied(&denial);
        denial
    }
}
