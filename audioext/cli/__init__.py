"""The command line: `audioext …`. Importing it needs no extra; running a command needs `audioext[cli]`."""

from __future__ import annotations

import sys

CLI_PACKAGES = frozenset({"cyclopts", "rich"})
MISSING_CLI = 'the command line needs two more packages: pip install "audioext[cli]"'


def main() -> None:
    """Run the command in `sys.argv` and exit with its code; `audioext --help` lists the codes."""
    try:
        from audioext.cli.app import run  # noqa: PLC0415 - its packages are an extra
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in CLI_PACKAGES:
            raise
        print(f"audioext: {MISSING_CLI}", file=sys.stderr)
        sys.exit(2)
    sys.exit(run(sys.argv[1:]))
