//! The order in which a slot reaches the disk and a request the network: law 2 as the system sees it.

use crate::harness::{Scale, World};
use crate::interposer::Interposer;

/// Making a record durable, step by step.
pub const DURABLE: [&str; 4] = [
    "write record.json.new",
    "fsync record.json.new",
    "rename record.json.new record.json",
    "fsync folder",
];

/// Looks for the whole of a swap before each POST, and says how many there are. The connection is opened for this one POST, behind
/// the swap and with nothing in between.
pub fn each_post_is_covered(calls: &[String]) -> usize {
    let expected: Vec<&str> = DURABLE.into_iter().chain(["connect"]).collect();
    let posts = (0..calls.len()).filter(|at| calls[*at] == "send POST");
    posts
        .inspect(|at| {
            let before = &calls[at.saturating_sub(expected.len())..*at];
            assert_eq!(before, expected, "law 2: {calls:#?}");
        })
        .count()
}

#[tokio::test]
async fn the_slot_is_synced_and_so_is_its_folder_before_the_post_leaves() {
    let world = World::new(Scale::brisk()).await;
    let interposer = Interposer::new();
    let daemon = interposer.start(&world, "state").await;
    let mut token = daemon.first_token().await;
    for _ in 0..3 {
        token = daemon.next_token(&token).await;
    }
    assert!(daemon.stop().await.success());
    let calls = interposer.calls();
    let posts = each_post_is_covered(&calls);
    assert_eq!(posts, world.sandbox.arrivals());
    // Not only slots: whatever takes the record's place was synced first, and its name after.
    let renames = (0..calls.len()).filter(|at| calls[*at].starts_with("rename"));
    let mut swaps = 0;
    for at in renames {
        assert_eq!(calls[at - 2..at + 2], DURABLE, "{calls:#?}");
        swaps += 1;
    }
    println!("{swaps} swaps and {posts} POSTs, each in the right order");
    assert!(swaps >= 2 * posts);
    world.finish();
}
