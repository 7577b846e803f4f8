"""What `import audioext` offers: every name loads, is documented, and has annotations that can be resolved."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import audioext as ax
from tests.support.tables import each_row

ROOT = Path(__file__).parents[2]
FACADE = ast.parse((ROOT / "audioext" / "__init__.py").read_text(encoding="utf-8"))

SURFACES = (
    "audioext",
    "audioext.bots",
    "audioext.providers",
    "audioext.providers.kit",
    "audioext.sandbox",
    "audioext.stores",
    "audioext.testing.clients",
    "audioext.testing.clock",
    "audioext.webhooks",
)
"""The modules whose `__all__` users import from."""
PROVIDERS = {"Kie": "kie", "KieJobs": "kie", "MusicGpt": "musicgpt", "SunoApi": "sunoapi", "Vidgo": "vidgo"}
DEPENDENCIES = {"aiohttp", "apsw", "attr", "attrs", "cattrs", "msgspec", "multidict", "redis", "tinytag", "yarl"}


def assigned(name: str) -> object:
    """Return the literal that the package assigns to *name*, as type checkers read it."""
    (value,) = (
        node.value
        for node in FACADE.body
        if isinstance(node, ast.Assign) and [name] == [ast.unparse(target) for target in node.targets]
    )
    return ast.literal_eval(value)


def imported_for_type_checkers() -> dict[str, set[str]]:
    """Return the names that type checkers see, by the module that they are imported from."""
    return {
        node.module or "": {alias.name for alias in node.names if alias.name == alias.asname}
        for guard in FACADE.body
        if isinstance(guard, ast.If) and ast.unparse(guard.test) == "TYPE_CHECKING"
        for node in guard.body
        if isinstance(node, ast.ImportFrom)
    }


def offered() -> Iterator[object]:
    """Yield everything in the `__all__` of the public modules."""
    for surface in SURFACES:
        module = importlib.import_module(surface)
        yield from (getattr(module, name) for name in module.__all__)


def is_ours(value: type | Callable[..., object]) -> bool:
    """Return whether a class or function is defined in this package."""
    return str(value.__module__).split(".")[0] == "audioext"


def methods(owner: type) -> Iterator[Callable[..., object]]:
    """Yield the functions behind the public methods and properties of a class, including inherited and special ones."""
    for base in filter(is_ours, owner.__mro__):
        for name, value in vars(base).items():
            if name.startswith("_") and not name.endswith("__"):
                continue
            behind = (value.fget, value.fset) if isinstance(value, property) else (getattr(value, "__func__", value),)
            yield from filter(inspect.isfunction, behind)


def classes_in(hint: object) -> Iterator[type]:
    """Yield the classes in an annotation."""
    inner = hint if isinstance(hint, list) else typing.get_args(hint)
    if isinstance(hint, type) and not inner:
        yield hint
    for each in inner:
        yield from classes_in(each)


@pytest.fixture(scope="module")
def reachable() -> dict[str, type | Callable[..., object]]:
    """Return everything of ours that users can reach: public names, their methods, and classes in their annotations."""
    found: dict[str, type | Callable[..., object]] = {}
    waiting: list[type | Callable[..., object]] = [
        value for value in offered() if inspect.isclass(value) or inspect.isfunction(value)
    ]
    while waiting:
        value = waiting.pop()
        name = f"{value.__module__}.{value.__qualname__}"
        if name in found or not is_ours(value):
            continue
        found[name] = value
        if inspect.isclass(value):
            waiting += methods(value)
        with suppress(NameError):  # a test below reports it
            for attribute, hint in typing.get_type_hints(value).items():
                waiting += classes_in(hint) if attribute[0] != "_" else ()
    return dict(sorted(found.items()))


def loaded_by(code: str) -> set[str]:
    """Return the modules that a fresh Python has loaded after *code*."""
    process = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return set(process.stdout.split())


@each_row("name", vars(ax)["__all__"])
def test_every_public_name_loads(name: str) -> None:
    """Every name in `__all__` can be loaded, and is in `dir`."""
    assert getattr(ax, name) is not None
    assert name in dir(ax)


def test_the_two_lists_of_public_names_agree() -> None:
    """The table of lazily loaded names and the imports for type checkers name the same."""
    for_type_checkers = imported_for_type_checkers()
    homes = {
        f"audioext.{module}": set(names.split())
        for module, names in typing.cast("dict[str, str]", assigned("_HOMES")).items()
    }

    assert for_type_checkers == homes
    assert {"__version__"}.union(*homes.values()) == set(vars(ax)["__all__"]) == set(dir(ax))


def test_the_client_describes_each_of_its_arguments() -> None:
    """The docstring of `Client` has one entry for each argument of its signature, in the same order."""
    (listed,) = re.findall(r"^Args:\n(.*?)\n\n", inspect.getdoc(ax.Client) or "", re.DOTALL | re.MULTILINE)
    described = [name.lstrip("*") for name in re.findall(r"^ {4}([*\w]+): ", listed, re.MULTILINE)]

    assert [*inspect.signature(ax.Client).parameters] == described


def test_a_name_that_is_not_offered_is_an_attribute_error() -> None:
    """An unknown name raises `AttributeError`, as in any other module."""
    assert not hasattr(ax, "Cleint")


def test_every_public_annotation_can_be_resolved(reachable: dict[str, type | Callable[..., object]]) -> None:
    """`typing.get_type_hints` works on everything that users can reach."""
    found = []
    for name, value in reachable.items():
        try:
            typing.get_type_hints(value)
        except NameError as error:
            found.append(f"{name}: {error}")

    assert [] == found, "\n".join(["", *found])


def test_no_public_annotation_names_a_private_class(reachable: dict[str, type | Callable[..., object]]) -> None:
    """No annotation that users can reach names a private class."""
    found = [name for name, value in reachable.items() if inspect.isclass(value) and value.__name__[0] == "_"]

    assert [] == found, "\n".join(["", *found])


@each_row(
    "name",
    ("Client", "Job", "Song", "Track", "ClientOptions", "ExtendOptions", "InstrumentalOptions", "SubmitOptions"),
)
def test_every_type_for_annotations_is_offered(name: str) -> None:
    """Each class and alias in the annotations of what users call is in `ax`, for their own annotations."""
    owner = getattr(ax, name)
    called = [owner] if name.endswith("Options") else [each for each in methods(owner) if each.__name__ != "__init__"]
    missing = set()
    for each in called:
        for annotation in each.__annotations__.values():
            for word in ast.walk(ast.parse(str(getattr(annotation, "__forward_arg__", annotation)))):
                value = vars(sys.modules[each.__module__]).get(word.id) if isinstance(word, ast.Name) else None
                is_named = (inspect.isclass(value) and is_ours(value)) or typing.get_origin(value) is not None
                if is_named and isinstance(word, ast.Name) and word.id not in dir(ax):
                    missing.add(word.id)

    assert set() == missing


def test_everything_public_is_explained(reachable: dict[str, type | Callable[..., object]]) -> None:
    """Every public class, function and method has a docstring."""
    found = [name for name, value in reachable.items() if not (value.__doc__ or "").strip()]

    assert [] == found, "\n".join(["", *found])


def test_a_misspelt_name_is_answered_with_the_one_that_was_meant() -> None:
    """A misspelt class or provider setting raises an error that suggests the right name."""
    with pytest.raises(AttributeError, match=r"'audioext' has no attribute 'Kei'; did you mean Kie\?"):
        _ = ax.Kei
    with pytest.raises(AttributeError, match=r"has no attribute 'qqq'$"):
        _ = ax.qqq
    with pytest.raises(TypeError, match=r"Kie has no setting apikey; did you mean api_key\?"):
        ax.Kie(apikey="k")  # type: ignore[call-arg]  # wrong on purpose


def test_importing_the_package_loads_nothing_else() -> None:
    """`import audioext` loads no dependency, no provider and no store."""
    loaded = loaded_by("import audioext")

    assert {"audioext", "audioext.version"} == {name for name in loaded if name.split(".")[0] == "audioext"}
    assert set() == loaded & DEPENDENCIES


def test_providers_load_nothing_else() -> None:
    """Importing the providers loads no store and nothing that does I/O; each loads alone, as another test checks."""
    loaded = loaded_by(f"from audioext import {', '.join(PROVIDERS)}")
    providers = {module.rpartition(".")[2] for module in loaded if module.startswith("audioext.providers.")}

    assert {"base", *PROVIDERS.values()} == {module for module in providers if not module.startswith("_")}
    assert set() == {module for module in loaded if module.startswith("audioext.stores")}
    assert "aiohttp" not in loaded


def test_a_client_shows_its_settings() -> None:
    """`help` and editors see each setting of a client, on the class and on its `__init__`."""
    shown = inspect.signature(ax.Client).parameters

    assert ["self", *shown] == list(inspect.signature(ax.Client.__init__).parameters)
    assert {"store", "trust_env", "session"} < shown.keys()
