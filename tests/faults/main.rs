//! The daemon under real faults: kills, freezes, full disks, torn files, wrong clocks and bad upstreams.
//!
//! The laws are asserted from outside, at the sandbox and on every answer. Where a machine cannot be moved, a layer beneath the
//! real binary does it (`interposer.rs`), or a clock of the test's own is given to the daemon in process (`suspend.rs`).

#![allow(
    clippy::unwrap_used,
    reason = "a test says that it failed by panicking"
)]
#![allow(unreachable_pub, reason = "nothing outside can reach a test")]

mod clocks;
mod containers;
mod counting;
mod disk;
mod durable;
mod freezes;
mod front;
#[allow(
    dead_code,
    unused_imports,
    reason = "it is shared with the integration tests"
)]
#[path = "../integration/harness.rs"]
mod harness;
mod interposer;
mod kills;
mod laws;
mod lengths;
mod lost;
mod namespaces;
mod partition;
mod read_only;
mod reboots;
mod records;
mod scales;
mod steps;
mod suspend;
mod torn;
mod upstreams;
