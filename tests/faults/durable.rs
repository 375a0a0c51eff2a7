//! The order in which a slot reaches the disk and a request the network: law 2 as the system sees it.

use crate::harness::{Scale, World};
use crate::interposer::Interposer;

/// Making a record durable, step by step.
const DURABLE: [&str; 4] = [
    "write record.json.new",
    "fsync record.json.new",
    "rename record.json.new record.json",
    "fsync folder",
];

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
    let posts: Vec<usize> = (0..calls.len())
        .filter(|at| calls[*at] == "send POST")
        .collect();
    assert_eq!(posts.len(), world.sandbox.arrivals());
    for at in &posts {
        // The connection is opened for this one POST, behind the whole of the swap, with nothing in between.
        let before = &calls[..*at];
        let expected: Vec<&str> = DURABLE.into_iter().chain(["connect"]).collect();
        let last = &before[before.len().saturating_sub(expected.len())..];
        assert_eq!(last, expected, "{calls:#?}");
    }
    // Not only slots: whatever takes the record's place was synced first, and its name after.
    let renames = (0..calls.len()).filter(|at| calls[*at].starts_with("rename"));
    let mut swaps = 0;
    for at in renames {
        assert_eq!(calls[at - 2..at + 2], DURABLE, "{calls:#?}");
        swaps += 1;
    }
    println!(
        "{swaps} swaps and {} POSTs, each in the right order",
        posts.len()
    );
    assert!(swaps >= 2 * posts.len());
    world.finish();
}
