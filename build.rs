//! Turns `proto` into Rust, without a `protoc` on the machine.

use std::path::PathBuf;
use std::{env, fs};

use protox::prost::Message;

const FILE: &str = "bearerd/v1/token_service.proto";

/// The one Rust type for both messages that carry a token: they are encoded alike.
const VENDED: &str = "crate::api::grpc::message::Vended";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Its README is not read by anything that is built.
    println!("cargo::rerun-if-changed=proto/bearerd");
    let mut compiler = protox::Compiler::new(["proto"])?;
    // The comments become the documentation of what is generated.
    compiler
        .include_imports(true)
        .include_source_info(true)
        .open_file(FILE)?;
    let descriptors = compiler.file_descriptor_set();
    let mut bare = descriptors.clone();
    for file in &mut bare.file {
        file.source_code_info = None;
    }
    let folder = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(folder.join("descriptors.bin"), bare.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        // What carries a token is written by hand: it is encoded once, and has a `Debug` that shows nothing.
        .extern_path(".bearerd.v1.GetTokenResponse", VENDED)
        .extern_path(".bearerd.v1.WatchTokenResponse", VENDED)
        .skip_debug(["bearerd.v1.Token", "bearerd.v1.ReportRejectedRequest"])
        .codec_path("crate::api::grpc::codec::SmallCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
