"""The command line, `audioext …`.

Importing it needs no extra; running a command needs `audioext[cli]`.
"""

from __future__ import annotations

import signal
import sys

from audioext.cli.exits import Exit, leave

CLI_PACKAGES = frozenset({"cyclopts", "rich"})
MISSING_CLI = 'the command line needs two more packages: pip install "audioext[cli]"'


def main() -> None:
    """Run the command in `sys.argv` and exit with its code; `audioext --help` lists the codes."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    try:
        from audioext.cli.app import run  # noqa: PLC0415 - its packages are an extra

        code = run(sys.argv[1:])
    except ImportError as error:
        missing = error.__cause__ or error  # the parser wraps what a command's module lacks
        name = missing.name if isinstance(missing, ImportError) else None
        if (name or "").partition(".")[0] not in CLI_PACKAGES:
            raise
        print(f"audioext: {MISSING_CLI}", file=sys.stderr)
        code = Exit.USAGE
    sys.exit(code)
