"""Run all benchmarks in turn, or some by name: `python -m tests.bench [NAME...] [--json FILE] [--plot FILE]`.

Each prints ratios within one run. `--json` writes all measurements, `--plot` draws the ratios as an SVG.
"""

from __future__ import annotations

import argparse
import ast
import asyncio
import importlib
import inspect
import json
from html import escape
from pathlib import Path

NAMES = (
    *("trips", "imports", "decoding", "bodies", "webhooks", "latency", "submits", "uploads", "lives", "wakeups"),
    *("many_jobs", "redis"),
)
Table = dict[str, dict[str, float]]
_ROW, _LEFT, _WIDTH = 22, 380, 760


def measure(name: str) -> Table:
    """Run one benchmark and return its table, which is empty if the benchmark only prints."""
    run = importlib.import_module(f"tests.bench.{name}").run
    done = run()
    return (asyncio.run(done) if inspect.iscoroutine(done) else done) or {}


def about(name: str) -> str:
    """Return a benchmark's name and the first line of its docstring, without importing it."""
    text = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return f"  {name:10} {(ast.get_docstring(ast.parse(text)) or '').splitlines()[0]}"


def draw(found: dict[str, Table]) -> str:
    """Return an SVG bar chart of the ratios, with a line at 1, the peer's own value."""
    rows = [
        (f"{name}: {row}", value["median"])
        for name, table in found.items()
        for row, value in table.items()
        if "ratio" in row or "times" in row
    ]
    most = max((value for _, value in rows), default=1.0)
    scale = (_WIDTH - _LEFT - 80) / max(most, 1.0)
    size = f'width="{_WIDTH}" height="{_ROW * (len(rows) + 1)}" font-family="sans-serif" font-size="12"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size}>']
    for place, (label, value) in enumerate(rows):
        y, width = _ROW * place + 4, max(value * scale, 1)
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>')
        parts.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_ROW - 6}" fill="#4a7ebb"/>')
        parts.append(f'<text x="{_LEFT + width + 6:.1f}" y="{y + 12}">{value:.2f}</text>')
    line = f'x1="{_LEFT + scale:.1f}" y1="0" x2="{_LEFT + scale:.1f}" y2="{_ROW * len(rows)}"'
    parts.append(f'<line {line} stroke="#b33" stroke-dasharray="4"/>')
    return "\n".join([*parts, "</svg>"])


def main() -> None:
    """Run the named benchmarks, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        epilog="\n".join(map(about, NAMES)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="one or several of those below; all without one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the ratios")
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    found = {name: measure(name) for name in given.names or NAMES}
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    if given.plot is not None:
        given.plot.write_text(draw(found), encoding="utf-8")


if __name__ == "__main__":
    main()
