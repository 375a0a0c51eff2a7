//! `refresh`: asks a running daemon for a new token now.

use super::reach::Side;
use super::{Console, Exit};
use crate::config::Sources;

pub(super) fn run(admin: Option<&str>, sources: &Sources, console: &mut Console<'_>) -> Exit {
    let side = Side::Operators;
    let asked = side.door(admin, sources).and_then(|door| {
        super::block_on(door.post("/refresh")).map_err(|failure| side.told(&failure))
    });
    match asked {
        Ok(body) => {
            let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let outcome = answer["outcome"].as_str().unwrap_or("accepted");
            console.print(&format!("{outcome}\n"));
            Exit::Done
        }
        Err((exit, why)) => console.end(exit, &why),
    }
}
