//! The record, as it lies on the disk.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::harness::{Daemon, Reply};

/// The record as it is now, if it is there.
pub fn record(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// The first token, once it is in the record as well: a slow disk may let it be vended a little earlier.
pub async fn committed(daemon: &Daemon) -> Reply {
    let token = daemon.first_token().await;
    let in_the_record = |status: &Value| {
        let slots = status["budget"]["slots"].as_array().unwrap();
        slots.last().is_some_and(|slot| slot["outcome"] == "minted")
    };
    daemon.until("the token is committed", in_the_record).await;
    token
}
