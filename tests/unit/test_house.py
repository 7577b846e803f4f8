"""The house rules of the package: modules and functions are short, names are unique, and suppressions have reasons."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "audioext"
FACADE = PACKAGE / "__init__.py"
"""The one module with imports for type checkers only; at run time it loads each name on first use."""

LONGEST_MODULE_LINES = 350
LONGEST_FUNCTION_LINES = 60

SUPPRESSION = re.compile(
    r"#\s*(?:(?:ruff\s*:\s*)?noqa(?:\s*:\s*[A-Z]+\d+(?:[\s,]+[A-Z]+\d+)*)?"
    r"|(?:type|pyright|mypy)\s*:\s*ignore(?:\[[^\]]*\])?"
    r"|(?:mypy|pyright)\s*:\s*(?:basic|standard|ignore-errors|[\w-]+\s*=\s*(?i:false|none))"
    r"|pragma\s*:\s*no\s+(?:cover|branch)"
    r"|fmt\s*:\s*(?:off|skip))"
)
SENTENCE_END = re.compile(r"[.!?](?=\s+\S)")


@cache
def trees() -> Mapping[Path, ast.Module]:
    """Return the parsed modules of the package, on first use."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def at(path: Path, line: int) -> str:
    """Return a place in the form that editors and terminals turn into a link."""
    return f"{path.relative_to(ROOT)}:{line}"


def listed(found: list[str]) -> str:
    """Return all findings, one per line, since pytest would cut a long list."""
    return "\n".join(["", *found])


def suppressions(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each comment of a file that silences a tool, from there to the line's end, with its line number."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if (found := SUPPRESSION.search(line)) is not None:
            yield number, line[found.start() :]


def is_one_sentence(text: str) -> bool:
    """Return whether *text* is one sentence."""
    return text.endswith(".") and not SENTENCE_END.search(text)


def test_no_module_is_too_long() -> None:
    """A module can be read in one sitting."""
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in trees()}
    found = [f"{at(path, 1)} has {n} lines" for path, n in lengths.items() if n > LONGEST_MODULE_LINES]

    assert [] == found, listed(found)


def test_no_function_is_too_long() -> None:
    """A function fits on one screen, from its `def` to its last line."""
    found = [
        f"{at(path, node.lineno)} {node.name} has {lines} lines"
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION_LINES
    ]

    assert [] == found, listed(found)


def test_every_suppression_has_its_reason() -> None:
    """Every comment that silences a tool gives its reason on the same line."""
    found = [
        f"{at(path, line)} {text}"
        for folder in ("audioext", "examples", "tests")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in suppressions(path)
        if not re.search(r"\w", SUPPRESSION.sub("", text))
    ]

    assert [] == found, listed(found)


def test_class_names_are_unique() -> None:
    """Class names are unique in the package, also those of private and nested classes."""
    places: dict[str, list[str]] = defaultdict(list)
    for path, tree in trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(at(path, node.lineno))
    found = [f"{name}: {', '.join(where)}" for name, where in sorted(places.items()) if len(where) > 1]

    assert [] == found, listed(found)


def test_nothing_is_imported_for_type_checkers_alone() -> None:
    """Annotations can be resolved at run time: the package has no stubs, and only its facade uses `TYPE_CHECKING`."""
    found = [at(path, 1) for path in sorted(PACKAGE.rglob("*.pyi"))]
    found += [
        at(path, node.lineno)
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if path != FACADE
        and (
            (isinstance(node, ast.Name) and node.id == "TYPE_CHECKING")
            or (isinstance(node, ast.Attribute) and node.attr == "TYPE_CHECKING")
        )
    ]

    assert [] == found, listed(found)


def test_no_import_is_cyclic() -> None:
    """No module imports itself through others, not even for type checkers or within a function."""
    graph = grimp.build_graph("audioext", cache_dir=None)
    upstream = {module: graph.find_upstream_modules(module) for module in sorted(graph.modules)}
    circles = {
        tuple(sorted({module, *(other for other in others if module in upstream[other])}))
        for module, others in upstream.items()
    }
    found = [", ".join(circle) for circle in sorted(circles) if len(circle) > 1]

    assert [] == found, listed(found)


def test_every_module_says_in_one_sentence_what_it_does() -> None:
    """A module's docstring opens with its responsibility in one sentence."""
    openings = {path: (ast.get_docstring(tree) or "").split("\n\n")[0] for path, tree in trees().items()}
    found = [f"{at(path, 1)} {text!r}" for path, text in openings.items() if not is_one_sentence(text)]

    assert [] == found, listed(found)


def test_unit_tests_mirror_the_package() -> None:
    """Each folder of unit tests has the name of a folder in the package."""
    folders = {path.name for path in (ROOT / "tests" / "unit").iterdir() if path.is_dir() and path.name[0] not in "._"}

    assert set() == folders - {path.parent.name for path in trees()}
