//! A gate that holds answers back until a test lets them go.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

/// Holds each mint that reaches it until it is released. Clones are the same gate.
///
/// Where it is held is for whoever sets the gate to say: mostly once it was judged, counted and logged, so that only its
/// answer waits. A client that gives up while its answer waits takes nobody's release.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    releases: Semaphore,
    reached: watch::Sender<u64>,
}

impl Gate {
    /// A closed gate.
    #[allow(clippy::new_without_default)] // a default gate would not say whether it is closed
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            releases: Semaphore::new(0),
            reached: watch::Sender::new(0),
        }))
    }

    /// Lets the next `count` mints pass, those that wait first.
    pub fn release(&self, count: usize) {
        self.0.releases.add_permits(count);
    }

    /// Lets everything pass from now on.
    pub fn open(&self) {
        self.0.releases.close();
    }

    /// Waits until `count` mints in all have reached the gate.
    pub async fn reached(&self, count: u64) {
        let mut reached = self.0.reached.subscribe();
        // The sender lives in this very gate, so the channel cannot be closed.
        let _ = reached.wait_for(|seen| *seen >= count).await;
    }

    /// Waits to be let through.
    pub(super) async fn pass(&self) {
        self.0.reached.send_modify(|seen| *seen += 1);
        if let Ok(permit) = self.0.releases.acquire().await {
            permit.forget();
        }
    }

    /// Whether everything may pass.
    pub(super) fn is_open(&self) -> bool {
        self.0.releases.is_closed()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("open", &self.is_open())
            .field("reached", &*self.0.reached.borrow())
            .finish()
    }
}

impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
