# One command each, the same in CI.

# The server, with promptkeep.toml if there is one in ARGS: just run --config promptkeep.toml
run *args:
    cargo run --release -- serve {{ args }}

# All tests, or those whose name contains ARGS.
test *args:
    ./test {{ args }}

# Formatting, lints, docs, dependencies: what CI refuses.
lint:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items
    cargo deny check

# All that CI does.
ci:
    .ci/run

# Criterion benches, or one of them: just bench --bench key
bench *args:
    cargo bench {{ args }}

# Server and its surroundings in containers.
up:
    docker compose up --build
