//! A state folder that cannot be written, at the start. One that becomes so later is in `disk.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use rustix::io::Errno;

use crate::harness::{Scale, World, cannot_run_here};
use crate::interposer::{Interposer, Switch, serve};
use crate::records::committed;

/// Runs the daemon on a folder that it must refuse.
fn refused(world: &World, folder: &Path, layer: Option<&Interposer>) -> String {
    let settings = world.write("refused.toml", &world.toml(folder, "refused"));
    let mut command = serve(&settings);
    if let Some(layer) = layer {
        command.envs(layer.environment());
    }
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    world.captured.add("stderr", &said);
    assert_eq!(status.code(), Some(78), "{said}");
    assert!(stdout.is_empty());
    let told = said.lines().last().unwrap().to_owned();
    assert!(
        told.contains("record.file.folder") && told.contains(folder.to_str().unwrap()),
        "{told}"
    );
    assert!(told.contains("or name another"), "{told}");
    told
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_refused_at_the_start() {
    let world = World::new(Scale::still()).await;
    let layer = Interposer::new();
    fs::create_dir(world.state()).unwrap();
    layer.fail(Switch::ReadOnly, Errno::ROFS);
    let told = refused(&world, &world.state(), Some(&layer));
    assert!(told.contains("Read-only file system"), "{told}");
    // Nobody can make a file here, not even root.
    let told = refused(&world, Path::new("/proc"), None);
    assert!(told.contains("cannot be written"), "{told}");
    let told = refused(&world, Path::new("/proc/bearerd"), None);
    assert!(told.contains("cannot be made"), "{told}");
    if rustix::process::geteuid().is_root() {
        cannot_run_here(
            "a_folder_that_cannot_be_written_is_refused_at_the_start, by its mode",
            "root may write to any folder",
        );
    } else {
        fs::set_permissions(world.state(), fs::Permissions::from_mode(0o500)).unwrap();
        let told = refused(&world, &world.state(), None);
        assert!(told.contains("Permission denied"), "{told}");
    }
    assert_eq!(world.sandbox.arrivals(), 0);
    world.finish();
}

#[tokio::test]
async fn a_live_token_in_a_folder_that_has_become_read_only_is_not_served_at_a_start() {
    let world = World::new(Scale::still()).await;
    let layer = Interposer::new();
    let daemon = layer.start(&world, "state").await;
    let token = committed(&daemon).await.access_token();
    daemon.kill();
    layer.fail(Switch::ReadOnly, Errno::ROFS);
    refused(&world, &world.state(), Some(&layer));
    layer.mend(Switch::ReadOnly);
    let daemon = layer.start(&world, "state").await;
    assert_eq!(daemon.first_token().await.access_token(), token);
    assert_eq!(world.sandbox.mints(), 1);
    assert!(daemon.stop().await.success());
    world.finish();
}
