//! What a test may ask of a sandbox, and do to it, without HTTP.

use tokio::sync::watch;

use super::gate::Gate;
use super::keys::ApiKey;
use super::log::MintLog;
use super::script::Script;
use super::settings::Switches;
use super::tokens::Worth;
use super::upstream::{Spend, SpendCounts};
use super::{Error, Sandbox};

/// What has happened.
impl Sandbox {
    /// The true log.
    pub fn log(&self) -> MintLog {
        self.with(|it, _| it.journal.snapshot())
    }

    /// How many mint calls arrived, however they were answered.
    pub fn arrivals(&self) -> usize {
        self.with(|it, _| usize::try_from(it.journal.arrivals()).unwrap_or(usize::MAX))
    }

    /// How many tokens were issued.
    pub fn mints(&self) -> usize {
        self.with(|it, _| usize::try_from(it.journal.mints()).unwrap_or(usize::MAX))
    }

    /// The most *counted* arrivals that any closed window of the budget's width has held, by the sandbox's own clock.
    ///
    /// Refused calls are not counted by default, so a client that overruns the budget does not show here: see
    /// [`worst_window_of_arrivals`](Self::worst_window_of_arrivals).
    pub fn worst_window(&self) -> usize {
        self.with(|it, _| it.budget.worst())
    }

    /// The most arrivals of any kind, those while down included, that any closed window of the budget's width has held.
    pub fn worst_window_of_arrivals(&self) -> usize {
        self.with(|it, _| it.traffic.worst())
    }

    /// Every token ever issued, in the order of issue: for tests that look for them where they must not be.
    pub fn issued_tokens(&self) -> Vec<String> {
        self.with(|it, _| it.tokens.all())
    }

    /// How often tokens were spent.
    pub fn spends(&self) -> SpendCounts {
        self.with(|it, _| it.spends)
    }

    /// The number of mint calls that have arrived. Each was judged and logged before it shows here.
    pub fn arrivals_watch(&self) -> watch::Receiver<u64> {
        self.0.arrivals.subscribe()
    }

    /// The number of mint calls that are over: the whole answer was handed to the connection, the connection was closed,
    /// or the client gave up.
    pub fn answers_watch(&self) -> watch::Receiver<u64> {
        self.0.answers.subscribe()
    }

    /// Waits until `count` mint calls in all have arrived.
    pub async fn arrived(&self, count: u64) {
        // The sender lives as long as this handle, so the channel cannot be closed.
        let _ = self.arrivals_watch().wait_for(|seen| *seen >= count).await;
    }

    /// Waits until `count` mint calls in all are over.
    pub async fn answered(&self, count: u64) {
        // As above.
        let _ = self.answers_watch().wait_for(|seen| *seen >= count).await;
    }
}

/// What is to happen.
impl Sandbox {
    /// Queues faults behind those already queued.
    pub fn script(&self, script: impl Into<Script>) {
        let script = script.into();
        self.with(|it, _| it.faults.append(script));
    }

    /// Forgets every queued fault, and the one that always happens.
    pub fn clear_faults(&self) {
        self.with(|it, _| it.faults.clear());
    }

    /// How many queued mints are still to meet a fault.
    pub fn faults_left(&self) -> u64 {
        self.with(|it, _| it.faults.faults_left())
    }

    /// Holds the answer of every mint that arrives from now on, until the gate releases it or is opened.
    pub fn hold_mints(&self) -> Gate {
        let gate = Gate::new();
        self.with(|it, _| it.gate = Some(gate.clone()));
        gate
    }

    /// The switches as they are.
    pub fn switches(&self) -> Switches {
        self.with(|it, _| it.switches)
    }

    /// Moves switches; says how they are then.
    pub fn switch(&self, change: impl FnOnce(&mut Switches)) -> Switches {
        self.with(|it, _| {
            change(&mut it.switches);
            it.switches
        })
    }

    /// While down, every new request is answered by closing its connection.
    pub fn set_down(&self, down: bool) {
        self.switch(|switches| switches.down = down);
    }

    /// While suspended, every live token is answered 403 where it is spent.
    pub fn set_suspended(&self, suspended: bool) {
        self.switch(|switches| switches.suspended = suspended);
    }
}

/// Tokens and keys.
impl Sandbox {
    /// Spends a token just as an HTTP call would, the limit per second included.
    pub fn spend(&self, token: &str) -> Spend {
        self.spend_header(Some(token))
    }

    /// Whether a token is live, without spending it.
    pub fn is_live(&self, token: &str) -> bool {
        self.with(|it, now| it.tokens.worth(token, now.mono) == Worth::Live)
    }

    /// Revokes a token; false if it was never issued, or revoked before.
    pub fn revoke(&self, token: &str) -> bool {
        self.with(|it, _| it.tokens.revoke(token))
    }

    /// Revokes all tokens; says how many were not revoked before.
    pub fn revoke_all(&self) -> usize {
        self.with(|it, _| it.tokens.revoke_where(|_| true))
    }

    /// The keys in use, by slot.
    pub fn keys(&self) -> Vec<ApiKey> {
        self.with(|it, _| it.keys.in_use())
    }

    /// Gives a key a new `api_key` under the same `key_id`; the old one stops working at once.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`].
    pub fn regenerate_key(&self, index: usize) -> Result<ApiKey, Error> {
        self.with(|it, _| {
            let key = it
                .keys
                .regenerate(index)
                .ok_or(Error::NoSuchKey { index })?;
            it.key_is_gone(index);
            Ok(key)
        })
    }

    /// Adds a random key in the first free slot; says which.
    ///
    /// # Errors
    /// [`Error::TooManyKeys`].
    pub fn add_key(&self) -> Result<(usize, ApiKey), Error> {
        self.with(|it, _| it.keys.add().ok_or(Error::TooManyKeys))
    }

    /// Removes a key; it stops working at once, and no other slot moves.
    ///
    /// # Errors
    /// [`Error::NoSuchKey`].
    pub fn remove_key(&self, index: usize) -> Result<(), Error> {
        self.with(|it, _| {
            if !it.keys.remove(index) {
                return Err(Error::NoSuchKey { index });
            }
            it.key_is_gone(index);
            Ok(())
        })
    }
}
