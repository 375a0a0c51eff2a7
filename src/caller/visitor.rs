//! The other end of one connection: who it is, and what it is let do.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Denial;
use super::audit::Line;
use super::directory::{Caller, Callers};
use super::guard::Refusal;
use super::limit::{self, Met};
use super::rule::Right;
use super::share::{Kind, Share};
use super::stream::{Stream, Watching};
use crate::listener::{Connection, Names, Peer};
use crate::token::{Generation, Token};

/// Whoever is at the other end of a connection. Found once, asked for each request. What it is refused is counted and told in the
/// audit here, and so is what it gets.
pub struct Visitor {
    callers: Arc<Callers>,
    /// None if no rule names it.
    caller: Option<Arc<Caller>>,
    /// None where there is no connection.
    peer: Option<Peer>,
    names: Option<Arc<Names>>,
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
            names: connection.and_then(|it| it.names.clone()),
            transport,
        }
    }

    /// Its request was turned away at the door.
    pub fn refused(&self, refusal: Refusal) {
        self.callers.refusals().count(refusal);
        self.tell_refused(refusal.word(), None);
    }

    /// Turns away whom no rule names.
    ///
    /// # Errors
    /// [`Denial::UnknownCaller`].
    pub fn known(&self) -> Result<(), Denial> {
        self.caller().map(|_| ())
    }

    /// Turns away whoever asks too often. Call it once for each request that keeps the rules of the door, so that a web page can use
    /// up nobody's rate.
    ///
    /// # Errors
    /// [`Denial::RateLimited`] or [`Denial::UnknownCaller`].
    pub fn paced(&self) -> Result<(), Denial> {
        let caller = self.caller()?;
        let peer = match (&self.callers.peers, self.peer) {
            (Some(peers), Some(Peer::Other(from))) => Some((peers, from.ip())),
            _ => None,
        };
        limit::ask(peer, caller.pace.as_ref()).map_err(|met| {
            let (caller, met) = match met {
                Met::Peer(met) => (None, met),
                Met::Caller(met) => (Some(Arc::clone(&caller.name)), met),
            };
            let retry_after = met.retry_after;
            self.denied(Denial::RateLimited {
                caller,
                retry_after,
            })
        })
    }

    /// Turns away whoever may not do this.
    ///
    /// # Errors
    /// [`Denial::NotPermitted`] or [`Denial::UnknownCaller`].
    pub fn may(&self, right: Right) -> Result<(), Denial> {
        let caller = self.caller()?;
        if caller.may.include(right) {
            return Ok(());
        }
        let caller = Arc::clone(&caller.name);
        Err(self.denied(Denial::NotPermitted { caller, right }))
    }

    /// It waits for a token from now on, until what is given here is dropped.
    ///
    /// # Errors
    /// [`Denial::TooManyStreams`] or [`Denial::UnknownCaller`].
    pub fn waits(&self) -> Result<Stream, Denial> {
        let caller = self.caller()?;
        Stream::open(caller).map_err(|most| {
            let (caller, most) = (Arc::clone(&caller.name), most.get());
            self.denied(Denial::TooManyStreams { caller, most })
        })
    }

    /// It watches tokens from now on, until what is given here is dropped.
    ///
    /// # Errors
    /// [`Denial::NotPermitted`], [`Denial::TooManyStreams`] or [`Denial::UnknownCaller`].
    pub fn watches(self: &Arc<Self>) -> Result<Watching, Denial> {
        self.may(Right::Watch)?;
        let stream = self.waits()?;
        let told = self.tell(Kind::StreamOpened, self.line("stream_opened"));
        let opened = self.callers.clock.now();
        Ok(Watching::new(Arc::clone(self), stream, opened, told))
    }

    /// It was given this token. The first time that this caller gets a generation is told in the audit.
    pub fn vended(&self, token: &Token) {
        if let Some(caller) = &self.caller
            && caller.vended.load(Ordering::Relaxed) != token.generation.0
        {
            self.tell_first_vend(caller, token);
        }
    }

    /// Its report of this generation came to this.
    pub fn reported(&self, generation: Generation, outcome: &'static str) {
        let line = Line {
            generation: Some(generation.0),
            outcome: Some(outcome),
            ..self.line("report")
        };
        self.tell(Kind::Report, line);
    }

    /// Its watch ended.
    pub(super) fn watched(&self, watching: &Watching) {
        if !watching.told {
            return self.callers.audit.skip(self.share());
        }
        let now = self.callers.clock.now();
        let line = Line {
            outcome: Some(watching.outcome),
            tokens: Some(watching.tokens),
            seconds: Some(now.boot.saturating_sub(watching.opened.boot).as_secs_f64()),
            ..self.line("stream_closed")
        };
        self.tell(Kind::StreamClosed, line);
    }

    fn caller(&self) -> Result<&Arc<Caller>, Denial> {
        match &self.caller {
            Some(caller) => Ok(caller),
            None => Err(self.denied(Denial::UnknownCaller)),
        }
    }

    #[cold]
    fn denied(&self, denial: Denial) -> Denial {
        self.callers.refusals().count_denied(&denial);
        let right = match &denial {
            Denial::NotPermitted { right, .. } => Some(right.word()),
            _ => None,
        };
        self.tell_refused(denial.word(), right);
        denial
    }

    #[cold]
    fn tell_refused(&self, outcome: &'static str, right: Option<&'static str>) {
        let line = Line {
            outcome: Some(outcome),
            right,
            ..self.line("refused")
        };
        self.tell(Kind::Refusal, line);
    }

    #[cold]
    fn tell_first_vend(&self, caller: &Caller, token: &Token) {
        let generation = token.generation.0;
        if caller.vended.fetch_max(generation, Ordering::Relaxed) >= generation {
            return;
        }
        let line = Line {
            generation: Some(generation),
            fingerprint: Some(token.secret.fingerprint()),
            ..self.line("first_vend")
        };
        self.tell(Kind::FirstVend, line);
    }

    fn line(&self, event: &'static str) -> Line<'_> {
        Line {
            event,
            caller: self.caller.as_ref().map(|it| &*it.name),
            from: self.peer.map(|it| it.to_string()),
            certificate: self.names.as_deref().and_then(certificate),
            transport: Some(self.transport),
            ..Line::default()
        }
    }

    fn tell(&self, kind: Kind, line: Line<'_>) -> bool {
        let audit = &self.callers.audit;
        audit.tell(self.share(), kind, self.peer, line)
    }

    pub(super) fn share(&self) -> &Share {
        match &self.caller {
            Some(caller) => &caller.share,
            None => &self.callers.audit.strangers,
        }
    }
}

/// One name of a certificate: the first URI, or else the first DNS name, of those that fit into a line.
fn certificate(names: &Names) -> Option<&str> {
    const MOST: usize = 256;
    let mut names = names.uris.iter().chain(&names.dns);
    let name = names.find(|name| name.len() <= MOST)?;
    Some(name)
}
