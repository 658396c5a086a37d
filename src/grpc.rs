//! The gRPC door: decodes, checks, calls the pipeline, encodes. Holds no cache or upstream logic.

#[expect(missing_docs, clippy::all, clippy::pedantic, reason = "generated from the proto")]
pub mod proto {
    tonic::include_proto!("promptkeep.v1");

    /// For server reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/promptkeep.binpb"));
}
