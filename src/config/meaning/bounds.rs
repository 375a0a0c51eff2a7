//! What connections may take.

use std::num::NonZeroU32;

use super::super::Bounds;
use super::super::raw::Written;
use crate::listener::Patience;

/// A peer's share of all connections, and the most it gets by default.
const PEER_SHARE: u32 = 4;
const PEER_CONNECTIONS: u32 = 1024;

/// `None` only where a problem was told.
pub(super) fn bounds(written: &mut Written) -> Option<Bounds> {
    let connections = NonZeroU32::new(written.count("limits.connections")?)?;
    let peer_connections = match written.entry("limits.peer_connections") {
        Some(_) => written.count("limits.peer_connections")?,
        None => (connections.get() / PEER_SHARE).clamp(1, PEER_CONNECTIONS),
    };
    Some(Bounds {
        patience: Patience {
            header: written.length("limits.header_timeout")?,
            idle: written.length("limits.idle_timeout")?,
            write: written.length("limits.write_timeout")?,
        },
        connections,
        peer_connections: NonZeroU32::new(peer_connections)?,
    })
}
