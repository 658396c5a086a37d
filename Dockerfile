# Builds promptkeep and downloads the embedding model, verified by checksum, so that the container starts without
# network access.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release
RUN XDG_CACHE_HOME=/cache target/release/promptkeep model pull

FROM debian:bookworm-slim
RUN apt-get update && apt-get install --no-install-recommends --yes ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home promptkeep && install -d -o promptkeep /data
COPY --from=build /src/target/release/promptkeep /usr/local/bin/promptkeep
COPY --from=build /cache/promptkeep/models/all-MiniLM-L6-v2 /models/all-MiniLM-L6-v2
USER promptkeep
# Listens beyond loopback, because nothing outside the container reaches its loopback. So it starts only with tenants, or
# with PROMPTKEEP_SERVER__ALLOW_OPEN=true. Publish the ports with care.
ENV PROMPTKEEP_SERVER__GRPC_LISTEN=0.0.0.0:50051 \
    PROMPTKEEP_SERVER__HTTP_LISTEN=0.0.0.0:8080 \
    PROMPTKEEP_STORE__PATH=/data \
    PROMPTKEEP_EMBEDDING__MODEL_DIR=/models/all-MiniLM-L6-v2
EXPOSE 50051 8080
VOLUME /data
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD ["promptkeep", "health"]
ENTRYPOINT ["promptkeep"]
CMD ["serve"]
