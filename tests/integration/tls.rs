//! Over TLS, as callers meet it: certificates that are replaced while everything runs, and callers of every kind.

pub mod caller;
#[path = "../../src/tls/testing.rs"]
pub mod certificates;
