//! The certificate of TLS listeners, its key, and the authorities of callers' certificates: read from files, checked as a whole, and
//! replaced while everything runs.
//!
//! What is in force was good when it was taken. What is bad on disk is told and never taken. Connections go by what was in force
//! when they began; nothing of one is resumed by another, so a changed set counts for every new connection at once.

mod algorithms;
mod chain;
mod credentials;
mod files;
mod metrics;
mod problem;
mod set;
mod validity;

pub use credentials::Credentials;
pub use files::{File, Files};
pub use metrics::Metrics;
pub use problem::{Fault, Problem};
pub use set::Facts;

#[cfg(test)]
pub(crate) mod testing;
