//! The daemon as its users meet it: the real binary, real sockets, a sandbox for an issuer.
//!
//! Nothing here knows how the daemon works inside. Every test ends by scanning all that was captured for secrets.

#![allow(
    clippy::unwrap_used,
    reason = "a test says that it failed by panicking"
)]
#![allow(unreachable_pub, reason = "nothing outside can reach a test")]

mod audit;
mod bench;
mod callers;
mod cli;
mod client;
mod client_shapes;
mod commands;
mod demo;
mod faults;
mod fuzzed;
mod grpc;
mod harness;
mod hostile;
mod hostile_upstream;
mod house;
mod issuer_tls;
mod languages;
mod ledger;
mod lifecycle;
mod listeners;
mod operators;
mod outage;
mod own_keys;
mod readme;
mod rotation;
mod scans;
mod scraping;
mod script;
mod service;
mod settings;
mod shared_folder;
mod sockets;
mod terminal;
mod times;
mod tls;
mod vending;
