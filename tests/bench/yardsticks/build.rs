//! The stock server speaks bearerd's own service, as any user's generated code would.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = "../../../proto";
    println!("cargo::rerun-if-changed={root}");
    let descriptors = protox::compile(["bearerd/v1/token_service.proto"], [root])?;
    tonic_prost_build::configure()
        .build_client(false)
        .compile_fds(descriptors)?;
    Ok(())
}
