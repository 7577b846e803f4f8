"""In notebooks a client can be opened by hand, objects show as text or HTML, and an unclosed client gives a warning."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import audioext as ax
from audioext.sandbox import Sandbox
from tests.integration.client.conftest import MakeClient, MakeSandbox

ROOT = Path(__file__).parents[3]
HOSTILE = '"><script>alert(1)</script>\n\x1b[2J'


class Outline(HTMLParser):
    """Collects the elements of a page with their links, and its text."""

    def __init__(self, html: str) -> None:
        """Read *html*."""
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record an element."""
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        """Record a text."""
        self.text += data


def in_html(shown: object) -> Outline:
    """Return the HTML that a notebook shows for a value."""
    html = getattr(shown, "_repr_html_")()  # noqa: B009 - the name is Jupyter's, not ours
    assert isinstance(html, str)
    return Outline(html)


async def test_a_client_can_be_opened_and_closed_by_hand(sandbox: Sandbox) -> None:
    """`open` returns the client, which works in any number of cells until `aclose`."""
    kie = ax.Kie(sandbox.api_key, base_url=sandbox.bases["kie"], pace=ax.Pace(first=0.01, every=0.02))
    client = await ax.Client(kie).open()
    song = await client.run(ax.Extend(audio_id=sandbox.track_ids[0], model="V5"))
    with pytest.raises(ax.ConfigError, match="opened once"):
        await client.open()
    await client.aclose()
    with pytest.raises(ax.ConfigError, match="the client is closed: make a new one"):
        await client.extend(audio_id=sandbox.track_ids[0], model="V5")

    assert (2, "<Client kie, closed>") == (len(song.tracks), repr(client))


def test_an_unclosed_client_gives_a_resource_warning() -> None:
    """A client that is dropped while open gives a ResourceWarning with advice; a closed or unopened one gives none."""
    programs = {
        "client = ax.Client(); await client.open()": 1,
        "client = ax.Client(); await client.open(); await client.aclose()": 0,
        "async with ax.Client() as client: pass": 0,
        "client = ax.Client()": 0,
        "client = await ax.Client().open(); client = await ax.Client().open(); await client.aclose()": 1,
    }
    script = "import asyncio, gc, sys, audioext as ax\n"
    for code in programs:
        script += f"async def main():\n  {code}\nasyncio.run(main())\ngc.collect()\nprint('END', file=sys.stderr)\n"
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )

    warning = "ResourceWarning: unclosed <Client without providers, open>: use `async with`"
    *said, rest = done.stderr.split("END\n")
    assert programs == {code: words.count(warning) for code, words in zip(programs, said, strict=True)}
    assert "" == rest


async def test_the_repr_of_a_live_object_is_one_line(sandbox: Sandbox, make_client: MakeClient) -> None:
    """The repr of client, job, wait, event, song and track is one line without lyrics or store."""
    client = await make_client(sandbox)
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    song = await job
    shown = [repr(value) for value in (client, job, job.first, await job.first, song, song.tracks[0])]

    assert ["<Client kie, open>", f"<Job {job.ref} kie, complete>"] == shown[:2]
    assert f"<Song {job.ref} kie {song.tracks[0].title!r}, 2 tracks>" == shown[4]
    assert all("\n" not in text and 150 >= len(text) for text in shown)


async def test_a_notebook_shows_players_and_stages(sandbox: Sandbox, make_client: MakeClient) -> None:
    """A song's HTML has a player and a cover for each track, a job's a row for each stage."""
    client = await make_client(sandbox)
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    song = await job
    player, stages = in_html(song), in_html(job)

    assert (2, 2) == (player.tags.count("audio"), player.tags.count("img"))
    assert {track.audio_url for track in song.tracks} <= set(player.links)
    assert all(word in stages.text for word in ("submitted", "text", "first", "complete", job.ref))
    assert 1 == stages.text.count("complete")


@pytest.mark.parametrize("link", [f"https://files.test/{HOSTILE}", "javascript:alert(1)", "data:text/html,x", None])
def test_hostile_text_is_escaped_in_html(link: str | None) -> None:
    """A hostile title is escaped, and a link that is not a web address is not rendered as one."""
    track = ax.Track(id=HOSTILE, title=HOSTILE, audio_url=link, image_url=link, duration=125.4)
    song = ax.Song(ref="r", provider="kie", task_id=None, tracks=(track, ax.Track()))
    shown = in_html(song)

    assert {"div", "span", "audio", "img"} >= set(shown.tags)
    assert {link} >= set(shown.links) if link is not None and link.startswith("https") else [] == shown.links
    assert HOSTILE in shown.text
    assert "(2:05)" in shown.text
    assert "untitled" in shown.text
    assert repr(song).isprintable()
    assert repr(track).isprintable()


async def test_a_failure_is_shown_as_text(make_sandbox: MakeSandbox, make_client: MakeClient) -> None:
    """The HTML of a failed job has the vendor's words in its last row."""
    sandbox = await make_sandbox(faults=["error=complete:501"])
    client = await make_client(sandbox)
    job = await client.extend(audio_id=sandbox.track_ids[0], model="V5")
    with pytest.raises(ax.JobFailedError) as failed:
        await job

    assert failed.value.job.failure is not None
    assert failed.value.job.failure.message in in_html(job).text


def test_a_problem_reads_as_a_sentence() -> None:
    """A problem can be shown as a sentence to people who do not know our field names."""
    with pytest.raises(ax.RequestError) as refused:
        ax.Extend(url="nowhere", continue_at=-1, style_weight=7)
    sentences = [problem.sentence for problem in refused.value.problems]

    assert "The url must be an http(s) URL, not 'nowhere'." in sentences
    assert "The style weight must be a number from 0 to 1, not 7." in sentences
    assert (
        "Source: give exactly one of a, b; got none."
        == ax.Problem("source", "give exactly one of a, b; got none").sentence
    )
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in sentences)
