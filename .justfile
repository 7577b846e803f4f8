# The commands of a day; `.github/CONTRIBUTING.md` says when to use which. Each is what you would type yourself.

set shell := ["bash", "-euo", "pipefail", "-c"]

bin := ".venv/bin"

# List the commands.
default:
    @just --list --unsorted

# Make .venv with all that development needs.
setup:
    python3 -m venv .venv
    {{ bin }}/python -m pip install --quiet --editable '.[dev]'

# Format, and mend what ruff can mend by itself.
fix:
    {{ bin }}/ruff check --fix
    {{ bin }}/ruff format

# Lint, types and import contracts.
check:
    {{ bin }}/ruff format --check
    {{ bin }}/ruff check
    {{ bin }}/mypy
    {{ bin }}/pyright --pythonpath {{ bin }}/python
    {{ bin }}/python -m pytest --quiet -m types tests/integration/test_guide.py
    {{ bin }}/lint-imports

# Run all tests, or those that ARGS name: just test tests/unit/state -k fold
test *ARGS:
    {{ bin }}/python -m pytest --quiet --numprocesses auto {{ ARGS }}

# Run all tests with branch coverage.
cover:
    {{ bin }}/python -m pytest --quiet --numprocesses auto --cov

# Do all of it in a fresh clone, on every Python that is found.
ci:
    bash .ci/run

# Kill processes and servers at work, for many minutes.
soak *ARGS="tests/processes":
    {{ bin }}/python -m pytest -m soak -s --numprocesses 0 {{ ARGS }}

# Let Hypothesis try twenty times as many cases, for many minutes.
thorough *ARGS="tests/unit tests/integration tests/security":
    {{ bin }}/python -m pytest --quiet --numprocesses auto --hypothesis-profile=thorough --timeout 1800 -m hypothesis {{ ARGS }}

# Live in simulated universes, in which all goes wrong that can: just simulate --seeds 0-9999 --processes 2
simulate *ARGS:
    {{ bin }}/python -m tests.security.simulate {{ ARGS }}

# Measure one thing against a bare peer: just bench webhooks
bench NAME *ARGS:
    {{ bin }}/python -m tests.bench.{{ NAME }} {{ ARGS }}
