# syntax=docker/dockerfile:1
# The program in a small image. Both node kinds run from it: `almanac` and `almanac longterm`.
FROM rust:1.95-bookworm AS build
# A C++ compiler and libclang are for RocksDB, which is compiled from its bundled source (some ten minutes, once).
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ clang libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target \
    CARGO_TARGET_DIR=/target cargo build --release --locked --bin almanac \
    && install -D -m 0755 /target/release/almanac /out/almanac

FROM debian:bookworm-slim
# Root certificates, for targets and receivers that are reached by https.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65534 -g 65534 /data
COPY --from=build /out/almanac /usr/local/bin/almanac
COPY --from=build /src/config/prometheus.yml /etc/almanac/prometheus.yml
USER 65534:65534
WORKDIR /data
VOLUME /data
EXPOSE 9090 9201
ENTRYPOINT ["/usr/local/bin/almanac"]
CMD ["--config.file=/etc/almanac/prometheus.yml", "--storage.tsdb.path=/data"]
