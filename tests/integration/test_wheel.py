"""The wheel contains only the package, declares its requirements, and works on its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from email.message import Message
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

import audioext as ax

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
INFO = f"audioext-{ax.__version__}.dist-info"

IMPORT_ALL = """
import importlib, importlib.metadata, pkgutil, sys
import audioext
for name in audioext.__all__:
    getattr(audioext, name)
for module in pkgutil.walk_packages(audioext.__path__, "audioext."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
(script,) = importlib.metadata.distribution("audioext").entry_points.select(group="console_scripts", name="audioext")
print(audioext.__version__, audioext.__file__)
sys.argv[1:] = ["guide"]
script.load()()
"""


def run(*command: str | Path, folder: Path, path: Path | None = None) -> str:
    """Run a command in *folder* with *path* first on the import path, and return its output."""
    environment = {**os.environ, **({} if path is None else {"PYTHONPATH": str(path)})}
    process = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert 0 == process.returncode, process.stdout + process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the builder that pip uses."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, folder=ROOT)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """Return the wheel's metadata."""
    with ZipFile(wheel) as archive:
        return Parser().parsestr(archive.read(f"{INFO}/METADATA").decode())


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """The wheel has every module and script, py.typed and the guide, and neither tests nor other files."""
    files = (path for suffix in ("py", "lua") for path in (ROOT / "audioext").rglob(f"*.{suffix}"))
    modules = {path.relative_to(ROOT).as_posix() for path in files}
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(f"{INFO}/")}

    page = {f"audioext/ui/static/{name}" for name in ("index.html", "page.css", "page.js")}
    assert modules | page | {"audioext/SKILL.md", "audioext/py.typed"} == names


def test_it_names_what_it_needs(metadata: Message) -> None:
    """The wheel's extras are those of pyproject.toml, `all` has them all, and the core needs none of their packages."""
    extras = set(PROJECT["optional-dependencies"])
    needs = metadata.get_all("Requires-Dist", [])

    assert extras == set(metadata.get_all("Provides-Extra", []))
    assert [f"audioext[{','.join(sorted(extras - {'all', 'dev'}))}]"] == PROJECT["optional-dependencies"]["all"]
    assert len(PROJECT["dependencies"]) == len([need for need in needs if "extra ==" not in need])


def test_it_introduces_itself(metadata: Message) -> None:
    """The wheel has the package's version, the README as its description, and the required Python of pyproject.toml."""
    assert ax.__version__ == metadata["Version"]
    assert PROJECT["requires-python"] == metadata["Requires-Python"]
    assert "text/markdown" == metadata["Description-Content-Type"]
    assert (ROOT / "README.md").read_text(encoding="utf-8").strip() == str(metadata.get_payload()).strip()


def test_it_carries_its_licence(wheel: Path, metadata: Message) -> None:
    """The wheel has the text of the licence that its metadata names, as that licence demands."""
    (name,) = metadata.get_all("License-File", [])
    with ZipFile(wheel) as archive:
        text = archive.read(f"{INFO}/licenses/{name}").decode()

    assert "MIT" == metadata["License-Expression"]
    assert text.startswith("MIT License\n\nCopyright (c)")


def test_it_works_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    """Unpacked into an empty folder, every module imports, and the installed command prints the guide."""
    target = tmp_path / "site"
    with ZipFile(wheel) as archive:
        archive.extractall(target)

    imported, guide = run(sys.executable, "-c", IMPORT_ALL, folder=tmp_path, path=target).split("\n", 1)

    assert f"{ax.__version__} {target / 'audioext' / '__init__.py'}" == imported
    assert (ROOT / "audioext" / "SKILL.md").read_text(encoding="utf-8") == guide
