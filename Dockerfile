# One image for all roles: `marquee global|regional|raft|gateway --config FILE`, `marquee migrate …`.
FROM rust:1.92-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin marquee

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/marquee /usr/local/bin/marquee
USER 10001:10001
ENTRYPOINT ["/usr/local/bin/marquee"]
