//! Compiles the proto with protox, so that the build needs no `protoc`.

use std::{env, fs, path::PathBuf};

use protox::prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["promptkeep/v1/promptkeep.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("promptkeep.binpb"), descriptors.encode_to_vec())?;
    let codec = "crate::grpc::codec::ProtoCodec";
    tonic_prost_build::configure().codec_path(codec).compile_fds(descriptors)?;
    Ok(())
}
