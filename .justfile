# Development commands; `.github/CONTRIBUTING.md` says when to use which.

set shell := ["bash", "-euo", "pipefail", "-c"]

bin := ".venv/bin"

# List the commands.
default:
    @just --list --unsorted

# Create .venv with all development dependencies.
setup:
    python3 -m venv .venv
    {{ bin }}/python -m pip install --quiet --editable '.[dev]'

# Format, and apply ruff's automatic fixes.
fix:
    {{ bin }}/ruff check --fix
    {{ bin }}/ruff format

# Check lint, types and import contracts.
check:
    {{ bin }}/ruff format --check
    {{ bin }}/ruff check
    {{ bin }}/mypy
    {{ bin }}/pyright --pythonpath {{ bin }}/python
    {{ bin }}/python -m pytest --quiet -m types tests/integration/test_guide.py
    {{ bin }}/lint-imports

# Run all tests, or those given in ARGS: just test tests/unit/state -k fold
test *ARGS:
    {{ bin }}/python -m pytest --quiet --numprocesses auto {{ ARGS }}

# Run all tests with branch coverage.
cover:
    {{ bin }}/python -m pytest --quiet --numprocesses auto --cov

# Run all checks in a fresh clone, on every installed Python from 3.11 on.
ci:
    bash .ci/run

# Kill working processes and servers, and check that nothing is lost or paid twice (takes minutes).
soak *ARGS="tests/processes":
    {{ bin }}/python -m pytest -m soak -s --numprocesses 0 {{ ARGS }}

# Let Hypothesis try fifty times as many cases (takes minutes).
thorough *ARGS="tests/unit tests/integration tests/security":
    {{ bin }}/python -m pytest --quiet --numprocesses auto --hypothesis-profile=thorough --timeout 1800 -m hypothesis {{ ARGS }}

# Simulate power cuts, partitions and clock steps: just simulate --seeds 0-9999 --processes 2
simulate *ARGS:
    {{ bin }}/python -m tests.security.simulate {{ ARGS }}

# Run one benchmark against a bare peer: just bench webhooks
bench NAME *ARGS:
    {{ bin }}/python -m tests.bench.{{ NAME }} {{ ARGS }}
