//! bearerd holds the one live bearer token of a Truecaller for Business account, refreshes it inside the account's hard
//! budget of mints, and vends it to the services beside it.
//!
//! This page is the map: what each room is for. Arrows between rooms point one way, and `tests/integration/house.rs`
//! holds them.

pub mod admin;
pub mod api;
pub mod app;
pub mod budget;
pub mod caller;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod issuer;
pub mod keeper;
pub mod lifecycle;
pub mod listener;
pub mod metrics;
pub mod record;
pub mod sandbox;
pub mod telemetry;
pub mod tls;
pub mod token;
pub mod vend;
