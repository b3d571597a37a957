//! The generated gRPC contracts; their meaning is in `proto/*.proto`.

#[expect(clippy::all, reason = "generated")]
pub mod registry {
    tonic::include_proto!("marquee.registry.v1");
}

#[expect(clippy::all, reason = "generated")]
pub mod feed {
    tonic::include_proto!("marquee.feed.v1");
}
