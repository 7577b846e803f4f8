"""The pytest plugin in its users' projects: each test runs pytest in a process."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.support import pages

pytest_plugins = ("pytester",)

ROOT = Path(__file__).parents[2]
ASYNCIO = ("-p", "pytest_asyncio.plugin")
AUTO = (*ASYNCIO, "--asyncio-mode=auto", "-o", "asyncio_default_fixture_loop_scope=function")


class Project:
    """A user's project, which has none of this project's settings."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        """Create the project in its own folder."""
        self._pytester = pytester

    def test(self, code: str, *options: str) -> pytest.RunResult:
        """Run the tests in *code*, with the usual imports added."""
        head = "import asyncio, pytest\nimport audioext as ax\nfrom audioext.testing.clock import JumpClock\n"
        self._pytester.makepyfile(test_it=head + code)
        return self.run("test_it.py", *options)

    def run(self, *options: str) -> pytest.RunResult:
        """Run pytest with our plugin, those that *options* load, and a timeout."""
        ours = ("-p", "audioext.testing.plugin", "-p", "pytest_timeout", "--timeout=30", "-p", "no:cacheprovider")
        return self._pytester.runpytest_subprocess("-W", "error", "--strict-markers", *ours, *options)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project in which pytest loads only the named plugins."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return Project(pytester)


def test_the_pages_show_tests_that_pass(project: Project, pytester: pytest.Pytester) -> None:
    """The tests of the example bot and of the README pass unchanged."""
    folder = pytester.mkdir("examples")
    for name in ("bot_plain.py", "test_bot.py"):
        (folder / name).write_text((ROOT / "examples" / name).read_text(encoding="utf-8"), encoding="utf-8")
    (block,) = (each for each in pages.blocks(ROOT / "README.md") if each.startswith("import pytest\n"))
    bot = """
def my_bot(client):
    @client.on(ax.Stage.FIRST)
    async def note(event):
        assert event.tracks
"""

    project.test(bot + block, *AUTO, "-o", "pythonpath=.", "examples").assert_outcomes(passed=5)


def test_strict_mode_needs_no_more_than_its_marker(project: Project) -> None:
    """The guide's tests pass unchanged in strict mode, without pytest-asyncio's own fixture decorator."""
    (block,) = (each for each in pages.blocks(ROOT / "audioext" / "SKILL.md") if each.startswith("import pytest\n"))
    scope = ("-o", "asyncio_default_fixture_loop_scope=function")

    project.test(block, *ASYNCIO, *scope).assert_outcomes(passed=2)


def test_mistakes_are_explained(project: Project) -> None:
    """An unknown fault, a misused marker, an unknown provider and a loop of another scope each say what to do."""
    code = """
@pytest.mark.audioext_faults("duplicated")
async def test_fault(audioext_sandbox): ...

@pytest.mark.audioext_faults(drop="first")
async def test_named(audioext_sandbox): ...

@pytest.mark.audioext_sandbox("fast")
async def test_nameless(audioext_sandbox): ...

@pytest.mark.audioext_sandbox(fast=True)
async def test_unknown(audioext_sandbox): ...

async def test_provider(audioext_client):
    with pytest.raises(ValueError, match="kie, kie-jobs, sunoapi, vidgo, musicgpt"):
        await audioext_client("suno")
    with pytest.raises(ValueError, match="webhook"):
        await audioext_client(by="mail")

@pytest.mark.asyncio(loop_scope="module")
async def test_loop(audioext_client):
    with pytest.raises(RuntimeError, match="asyncio_default_fixture_loop_scope"):
        await audioext_client()
"""
    result = project.test(code, *AUTO)

    result.assert_outcomes(passed=2, errors=4)
    lines = ("*'duplicated' is not a fault; the faults are *", "*takes texts*", "*by name*", "*'fast'*Settings*")
    result.stdout.fnmatch_lines(lines)


def test_without_pytest_asyncio_the_fixtures_say_so(project: Project) -> None:
    """Without pytest-asyncio an asynchronous fixture says what to install."""
    result = project.test(
        "def test_a(audioext_client): ...\ndef test_b(audioext_sandbox): ...\ndef test_c(audioext_clock): ..."
    )

    result.assert_outcomes(errors=3)
    assert "need pytest-asyncio, which is not active: pip install pytest-asyncio" in result.stdout.str()


def test_a_project_without_the_fixtures_imports_nothing_heavy(project: Project) -> None:
    """A project that uses none of the fixtures imports no HTTP library, client or sandbox."""
    code = """import sys
def test_it():
    heavy = {"aiohttp", "attrs", "msgspec", "numpy", "audioext.client", "audioext.sandbox"}
    assert not heavy & set(sys.modules)
"""
    (Path.cwd() / "test_light.py").write_text(code, encoding="utf-8")

    project.run(*AUTO, "test_light.py").assert_outcomes(passed=1)


def test_pytest_finds_it() -> None:
    """The installed package registers the plugin with pytest."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert {"audioext": "audioext.testing.plugin"} == project["entry-points"]["pytest11"]
