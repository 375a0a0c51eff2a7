//! Several daemons on one state folder share one token and one budget.

use crate::harness::{Scale, World};

#[tokio::test]
async fn two_daemons_on_one_folder_share_one_token_and_one_budget() {
    let world = World::new(Scale::brisk()).await;
    let daemons = [world.start().await, world.start_beside("beside").await];
    let mut last = [
        daemons[0].first_token().await,
        daemons[1].first_token().await,
    ];
    assert_eq!(last[0].access_token(), last[1].access_token());
    for _ in 0..8 {
        for (daemon, last) in daemons.iter().zip(&mut last) {
            *last = daemon.next_token(last).await;
            assert_eq!(world.sandbox.spend(&last.access_token()).status(), 200);
        }
    }
    let rotations = world.sandbox.mints();
    let [one, other] = daemons;
    assert!(one.stop().await.success());
    // The other goes on alone.
    let next = other.next_token(&last[1]).await;
    assert!(next.generation() > last[1].generation());
    assert!(other.stop().await.success());
    assert!(
        rotations <= 11,
        "{rotations} mints for nine tokens: the daemons do not share"
    );
    world.finish();
}

#[tokio::test]
async fn a_second_daemon_finds_the_live_token_and_mints_nothing() {
    let world = World::new(Scale::still()).await;
    let one = world.start().await;
    let token = one.first_token().await.access_token();
    let other = world.start_beside("beside").await;
    assert_eq!(other.first_token().await.access_token(), token);
    assert_eq!(world.sandbox.mints(), 1);
    for daemon in [one, other] {
        assert!(daemon.stop().await.success());
    }
    world.finish();
}
