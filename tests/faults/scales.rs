//! The lengths that several of these tests go by.

use std::time::Duration;

use crate::harness::{Scale, World};

/// A token lives for 2.4 seconds, a slot for 1.9, and a claim for a quarter of one.
///
/// A request may arrive up to a second after its slot was taken: what the sandbox reads late, because this machine has other work,
/// must not look like a mint too many.
pub fn short() -> Scale {
    Scale {
        lifetime: Duration::from_millis(2_400),
        window: Duration::from_millis(800),
        in_flight: Duration::from_millis(1_000),
        timeout: Duration::from_millis(110),
        limit: 3,
    }
}

/// A token lives for a minute; the window is two seconds, so that a new record's slots are soon free.
pub fn minutes() -> Scale {
    Scale {
        lifetime: Duration::from_secs(60),
        timeout: Duration::from_secs(2),
        in_flight: Duration::from_secs(4),
        ..Scale::brisk()
    }
}

/// Settings with which routine refreshes may take every slot.
pub fn without_reserve(world: &World, name: &str) -> String {
    let toml = world.toml(&world.state(), name);
    toml.replace("[budget]\n", "[budget]\nreserve = 0\n")
}
