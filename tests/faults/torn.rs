//! A state file that was cut off at any byte, and what a crash leaves beside it.

use std::fs;
use std::path::Path;

use bearerd::record::file::FileRegister;
use bearerd::record::{Record, Register, Unreadable};

use crate::harness::{Scale, World};
use crate::records::committed;

/// The record of a daemon that has lived: a token, slots of several outcomes, a back-off.
async fn lived(world: &World) -> Vec<u8> {
    let daemon = world.start().await;
    let token = daemon.first_token().await;
    daemon.next_token(&token).await;
    world.sandbox.set_down(true);
    let failed = |status: &serde_json::Value| status["attempts"][0]["outcome"] == "lost";
    daemon.until("an attempt is lost", failed).await;
    daemon.kill();
    world.sandbox.set_down(false);
    fs::read(world.record()).unwrap()
}

#[tokio::test]
async fn a_record_cut_off_at_any_byte_is_told_and_moved_aside() {
    let world = World::new(Scale::brisk()).await;
    let text = lived(&world).await;
    let folder = tempfile::tempdir().unwrap();
    let register = FileRegister::open(folder.path()).unwrap();
    let aside = folder.path().join("record.json.torn-1");
    let whole = Record::parse(&text).unwrap();
    // Only the line's end may be missing.
    assert_eq!(Record::parse(&text[..text.len() - 1]).unwrap(), whole);
    for length in 0..text.len() - 1 {
        let torn = &text[..length];
        let unreadable = Record::parse(torn).unwrap_err();
        assert!(
            matches!(unreadable, Unreadable::Torn { .. }),
            "{length}: {unreadable}"
        );
        fs::write(register.path(), torn).unwrap();
        let loaded = register.load().await.unwrap();
        assert!(loaded.found.is_none(), "{length} bytes are no record");
        let told = loaded.moved_aside.unwrap();
        assert!(told.contains("not a whole record"), "{told}");
        assert_eq!(fs::read(&aside).unwrap(), torn);
        assert!(!register.path().exists());
        fs::remove_file(&aside).unwrap();
        world.captured.add("why it is torn", &told);
    }
    println!("{} lengths of one record, each moved aside", text.len() - 1);
    world.finish();
}

/// Starts the real daemon on a file of this length and looks at what it says and does.
async fn start_on(world: &World, text: &[u8], length: usize) -> crate::harness::Daemon {
    for file in fs::read_dir(world.state()).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    world.write("state/record.json", "");
    fs::write(world.record(), &text[..length]).unwrap();
    let daemon = world.start().await;
    let status = daemon
        .until("the record is read", |status| {
            status["register"]["moved_aside"].is_string()
        })
        .await;
    let told = status["register"]["moved_aside"].as_str().unwrap();
    let aside = world.state().join("record.json.torn-1");
    assert!(
        told.contains("not a whole record") && told.contains(aside.to_str().unwrap()),
        "{told}"
    );
    assert_eq!(fs::read(aside).unwrap(), text[..length]);
    daemon
}

/// Some lengths, and among them the ends and the middle of the token.
fn lengths(text: &[u8], world: &World) -> Vec<usize> {
    let all = String::from_utf8_lossy(text).into_owned();
    let token = world.sandbox.issued_tokens().into_iter();
    let token = token.filter_map(|token| all.find(&token)).next().unwrap();
    let last = text.len() - 2;
    let mut lengths = vec![0, 1, 2, token, token + 32, token + 64, last / 2, last];
    lengths.extend((0..8).map(|_| fastrand::usize(0..=last)));
    lengths
}

#[tokio::test]
async fn a_daemon_that_finds_a_torn_record_counts_its_past_as_unknown() {
    let mut world = World::new(Scale {
        limit: 4,
        ..Scale::brisk()
    })
    .await;
    let text = lived(&world).await;
    let arrived = world.sandbox.arrivals();
    // With this nothing may be minted for a whole period, whatever was.
    world.settings("[record]\nabsent = \"wait\"");
    let lengths = lengths(&text, &world);
    for length in &lengths {
        let daemon = start_on(&world, &text, *length).await;
        let ready = daemon.ask_admin("/readyz?verbose").await;
        assert_eq!(ready.status, 503);
        assert_eq!(daemon.token().await.problem(), "no_token_yet");
        daemon.kill();
    }
    assert_eq!(
        world.sandbox.arrivals(),
        arrived,
        "minted on an unknown past"
    );
    // Left alone, it waits for a period and goes on.
    let daemon = start_on(&world, &text, text.len() / 2).await;
    let token = daemon.first_token().await.access_token();
    assert_eq!(world.sandbox.spend(&token).status(), 200);
    assert!(daemon.stop().await.success());
    println!(
        "{} starts on a torn record, worst window {}",
        lengths.len() + 1,
        world.sandbox.worst_window_of_arrivals()
    );
    world.finish();
}

#[tokio::test]
async fn one_mint_at_once_behind_a_torn_record_and_the_next_at_a_safe_distance() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let token = committed(&daemon).await.access_token();
    daemon.kill();
    let text = fs::read(world.record()).unwrap();
    let daemon = start_on(&world, &text, text.len() / 2).await;
    assert_ne!(daemon.first_token().await.access_token(), token);
    assert_eq!(world.sandbox.arrivals(), 2);
    let refused = daemon.refresh().await;
    assert_eq!(refused.status, 429);
    assert!(refused.text.contains("probation"), "{}", refused.text);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn what_a_crash_left_half_written_is_neither_read_nor_kept() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let token = committed(&daemon).await.access_token();
    daemon.kill();
    let text = fs::read(world.record()).unwrap();
    let fresh = |world: &World| world.state().join("record.json.new");
    for length in [0, 1, text.len() / 2, text.len()] {
        world.write("state/record.json.new", "");
        fs::write(fresh(&world), &text[..length]).unwrap();
        let daemon = world.start().await;
        assert_eq!(daemon.first_token().await.access_token(), token);
        daemon.kill();
        assert!(!Path::exists(&fresh(&world)));
    }
    assert_eq!(world.sandbox.mints(), 1);
    world.finish();
}
