# One command for each chore. CI runs `just ci`.

# Run the server: just run --config promptkeep.toml
run *args:
    cargo run --release -- serve {{ args }}

# Run every test, or the Rust tests whose name contains ARGS.
test *args:
    ./test {{ args }}

# Check formatting, lints, documentation and dependencies.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
    cargo deny check

# Run everything that CI runs.
ci:
    .ci/run

# Run all benches, or one: just bench --bench key
bench *args:
    cargo bench --workspace {{ args }}

# Start two replicas, Redis, simulated models, Prometheus and Grafana in containers.
up:
    docker compose up --build
