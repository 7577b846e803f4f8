"""From arguments to an exit code: the commands are parsed here, and a misspelt one is told in one sentence."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from cyclopts import CycloptsError
from rich.console import Console
from rich.text import Text

from audioext.cli.commands import app
from audioext.cli.exits import Exit
from audioext.cli.text import dump


def run(arguments: Sequence[str]) -> int:
    """Run the command in *arguments* and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A title with a letter that the terminal's encoding lacks must not end a command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _misused(str(error), in_json="--json" in arguments)
    return int(code or Exit.OK)


def _misused(message: str, *, in_json: bool) -> int:
    if in_json:
        facts = {"type": "UsageError", "message": message, "exit_code": int(Exit.USAGE)}
        print(dump({"error": facts}), flush=True)
    else:
        console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        console.print(Text.assemble(("audioext: ", "bold red"), message))
        console.print(Text("  audioext --help, or audioext COMMAND --help, says what there is"))
    return int(Exit.USAGE)
