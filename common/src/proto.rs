//! The generated gRPC contracts; their meaning is in `proto/*.proto`.

#[allow(clippy::all, reason = "generated; what it trips over differs by version")]
pub mod registry {
    tonic::include_proto!("marquee.registry.v1");
}

#[allow(clippy::all, reason = "generated; what it trips over differs by version")]
pub mod feed {
    tonic::include_proto!("marquee.feed.v1");
}

#[allow(clippy::all, reason = "generated; what it trips over differs by version")]
pub mod audit {
    tonic::include_proto!("marquee.audit.v1");
}

#[allow(clippy::all, reason = "generated; what it trips over differs by version")]
pub mod notices {
    tonic::include_proto!("marquee.notices.v1");
}
