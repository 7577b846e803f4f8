"""The command line, `audioext …`.

Importing it needs no extra; running a command needs `audioext[cli]`, and `audioext[sandbox]` if it runs a sandbox.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys

from audioext.cli.exits import Exit, leave, missing_extra


def main() -> None:
    """Run the command in `sys.argv` and exit with its code; `audioext --help` lists the codes."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # the shell closed it, as by `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - open until the end
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, leave)
    gc.set_threshold(50_000)  # by default, collections take a sixth of a short command's CPU time
    try:
        from audioext.cli.app import run  # noqa: PLC0415 - its packages are an extra

        code = run(sys.argv[1:])
    except ImportError as error:
        if (missing := missing_extra(error)) is None:
            raise
        print(f"audioext: {missing}", file=sys.stderr)
        code = Exit.USAGE
    if code == Exit.INTERRUPTED:  # another Ctrl-C would find Python without handlers on its way out
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)
