# What a developer runs. CI runs `scripts/test --all` and nothing else.

# List the recipes.
default:
    @just --list

# Format, lint, documentation, licences, unit, property and integration tests; or only the tests named.
test *FILTER:
    ./scripts/test {{ FILTER }}

# Everything that CI runs: also the real client libraries, the long tests and the demo.
test-all:
    ./scripts/test --all

# A real model, streaming through the tunnel.
demo *ARGS:
    ./scripts/demo {{ ARGS }}

# Ours beside a direct connection and an nginx TLS hop.
bench *ARGS:
    ./scripts/bench {{ ARGS }}

# The real programs, broken at random for two minutes, or --minutes N; --seed S replays a run.
chaos *ARGS:
    ./scripts/chaos {{ ARGS }}

# Fuzz targets, all or those named: whatever reads bytes from outside.
fuzz *ARGS:
    ./scripts/fuzz {{ ARGS }}

# Format the source.
fmt:
    cargo fmt --all
