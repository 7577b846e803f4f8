"""What `import audioext` offers: every name loads, explains itself, has real annotations, and costs nothing unused."""

from __future__ import annotations

import ast
import importlib
import inspect
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
    """Return what the package assigns to *name*, which has to be written out: type checkers read it the same way."""
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
    """Yield all that the public modules name."""
    for surface in SURFACES:
        module = importlib.import_module(surface)
        yield from (getattr(module, name) for name in module.__all__)


def is_ours(value: type | Callable[..., object]) -> bool:
    """Tell whether a class or a function is defined in this package."""
    return str(value.__module__).split(".")[0] == "audioext"


def methods(owner: type) -> Iterator[Callable[..., object]]:
    """Yield the functions behind the public methods and properties of a class, inherited and special ones too."""
    for base in filter(is_ours, owner.__mro__):
        for name, value in vars(base).items():
            if name.startswith("_") and not name.endswith("__"):
                continue
            behind = (value.fget, value.fset) if isinstance(value, property) else (getattr(value, "__func__", value),)
            yield from filter(inspect.isfunction, behind)


def classes_in(hint: object) -> Iterator[type]:
    """Yield the classes that an annotation is made of."""
    inner = hint if isinstance(hint, list) else typing.get_args(hint)
    if isinstance(hint, type) and not inner:
        yield hint
    for each in inner:
        yield from classes_in(each)


@pytest.fixture(scope="module")
def reachable() -> dict[str, type | Callable[..., object]]:
    """Return what users can get hold of: what is offered, its methods, and what of ours their annotations name."""
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
        with suppress(NameError):  # a test complains of it
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
    """What `__all__` promises is there when it is asked for."""
    assert getattr(ax, name) is not None
    assert name in dir(ax)


def test_the_two_lists_of_public_names_agree() -> None:
    """The table of what is loaded on first use, and the imports for type checkers, which re-export, name the same."""
    for_type_checkers = imported_for_type_checkers()
    homes = {
        f"audioext.{module}": set(names.split())
        for module, names in typing.cast("dict[str, str]", assigned("_HOMES")).items()
    }

    assert for_type_checkers == homes
    assert {"__version__"}.union(*homes.values()) == set(vars(ax)["__all__"])


def test_a_name_that_is_not_offered_is_an_attribute_error() -> None:
    """A misspelt name fails as in any other module."""
    assert not hasattr(ax, "Cleint")


def test_every_public_annotation_can_be_resolved(reachable: dict[str, type | Callable[..., object]]) -> None:
    """`typing.get_type_hints` works on all that users can get hold of, so tools that read annotations do as well."""
    found = []
    for name, value in reachable.items():
        try:
            typing.get_type_hints(value)
        except NameError as error:
            found.append(f"{name}: {error}")

    assert [] == found, "\n".join(["", *found])


def test_no_public_annotation_names_a_private_class(reachable: dict[str, type | Callable[..., object]]) -> None:
    """Whatever users get hold of has a name that they may write into their own annotations."""
    found = [name for name, value in reachable.items() if inspect.isclass(value) and value.__name__[0] == "_"]

    assert [] == found, "\n".join(["", *found])


def test_everything_public_is_explained(reachable: dict[str, type | Callable[..., object]]) -> None:
    """Every public class, function and method has a docstring of its own."""
    found = [name for name, value in reachable.items() if not (value.__doc__ or "").strip()]

    assert [] == found, "\n".join(["", *found])


def test_a_misspelt_name_is_answered_with_the_one_that_was_meant() -> None:
    """The name of a class, or of a provider's setting."""
    with pytest.raises(AttributeError, match=r"'audioext' has no attribute 'Kei'; did you mean Kie\?"):
        _ = ax.Kei
    with pytest.raises(AttributeError, match=r"has no attribute 'qqq'$"):
        _ = ax.qqq
    with pytest.raises(TypeError, match=r"Kie has no setting apikey; did you mean api_key\?"):
        ax.Kie(apikey="k")  # type: ignore[call-arg]  # wrong on purpose


def test_importing_the_package_loads_nothing_else() -> None:
    """`import audioext` costs next to nothing: no dependency, no provider and no store is loaded."""
    loaded = loaded_by("import audioext")

    assert {"audioext", "audioext.version"} == {name for name in loaded if name.split(".")[0] == "audioext"}
    assert set() == loaded & DEPENDENCIES


@each_row(("name", "home"), PROVIDERS.items())
def test_a_provider_is_loaded_alone(name: str, home: str) -> None:
    """Whoever wants one provider loads no other, no store, and nothing that does I/O."""
    loaded = loaded_by(f"from audioext import {name}")
    providers = {module.rpartition(".")[2] for module in loaded if module.startswith("audioext.providers.")}

    assert {"base", home} == {module for module in providers if not module.startswith("_")}
    assert set() == {module for module in loaded if module.startswith("audioext.stores")}
    assert "aiohttp" not in loaded


def test_a_client_shows_its_settings() -> None:
    """`help`, editors and tools that read signatures see each setting, on the class and on its `__init__`."""
    shown = inspect.signature(ax.Client).parameters

    assert ["self", *shown] == list(inspect.signature(ax.Client.__init__).parameters)
    assert {"store", "trust_env", "session"} < shown.keys()
