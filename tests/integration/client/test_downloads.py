"""Downloads fetch links as given, retry and resume while that may help, and save only whole audio files."""

from __future__ import annotations

import asyncio
import errno
import gzip
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

import audioext as ax
from audioext.files.downloads import Downloader
from audioext.files.fetching import STALE_TRIES, wire_url
from audioext.files.hosts import LinkRules, hosts_of_api
from audioext.http.transport import Transport
from tests.support.clock import LoopTime
from tests.support.hosts import LOOPBACK, Answer, Host, breaks, gives, serve_host
from tests.support.sounds import MP3, OTHER_MP3, WAV, mp4

PATH = "/f/1.mp3"
REST, OTHER_REST = f"bytes 6000-{len(MP3) - 1}/{len(MP3)}", b"x" * (len(MP3) - 6_000)


def song_of(
    *links: str, title: str | None = "Rain", duration: float | None = None, source: str | None = None
) -> ax.Song:
    """Return a song with these links."""
    tracks = tuple(ax.Track(id=str(n), title=title, audio_url=link, duration=duration) for n, link in enumerate(links))
    return ax.Song(ref="r" * 24, provider="kie", task_id="t", tracks=tracks, source_name=source)


async def save(song: ax.Song, folder: Path, *, is_fresh: bool = True, overwrite: bool = False) -> list[Path]:
    """Save with a new transport."""
    transport = Transport()
    try:
        downloader = Downloader(rules=LOOPBACK, transport=transport, is_fresh=is_fresh)
        return [*await downloader.save(song, folder, overwrite=overwrite)]
    finally:
        await transport.aclose()


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    """Return a file host."""
    async with serve_host() as host:
        yield host


# --- links ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("link", "asked"),
    [
        ("/f/a.mp3?X-Amz-Credential=AK%2F20261001%2Fs3&X-Amz-Signature=ab", None),
        ("/f/a%28live%29.mp3?sig=abc%3D&e=1", None),
        ("/f/%40me/song.mp3?Signature=a-b_c~", None),
        ("/f/song.mp3?title=Caf%C3%A9&token=a%2Cb%3Ac", None),
        ("/f/%c3%a9%2e.mp3?q=%7e+%20&&x", None),
        ("/f//x/../1.mp3?a=[b]|{c}^'!$*", None),
        ("/f/a b.mp3?t=é", "/f/a%20b.mp3?t=%C3%A9"),
    ],
)
@pytest.mark.parametrize("way", ["at once", "redirected"])
async def test_a_link_is_fetched_byte_for_byte(
    link: str, asked: str | None, way: str, host: Host, tmp_path: Path
) -> None:
    """A link is requested byte for byte, as signatures cover it; only illegal characters are escaped (S02, S13-S15)."""
    asked = asked or link
    host.put(asked, gives())
    first = (
        host.put("/go", gives(b"", status=302, Location=host.url + link)) if way == "redirected" else host.url + link
    )

    (path,) = await save(song_of(first), tmp_path)

    assert (asked, MP3) == (host.paths[-1], path.read_bytes())


async def test_a_host_outside_ascii_is_looked_up_by_its_name_in_the_dns(host: Host, tmp_path: Path) -> None:
    """A host with other letters than ASCII is requested by its IDNA name, in a link and in a redirect."""
    idna = "http://xn--bcher-kva.example/f/é%2F.mp3?s=%2f".replace("é", "%C3%A9")
    assert idna == str(wire_url("http://bücher.example/f/é%2F.mp3?s=%2f"))
    assert idna == str(wire_url("http://b\udcc3\udcbccher.example/f/é%2F.mp3?s=%2f"))
    assert "http://xn--bcher-kva.example:81/ü?ü".replace("ü", "%C3%BC") == str(wire_url("http://bücher.example:81/ü?ü"))
    moved = gives(b"", status=302, Location="http://bücher.invalid/a.mp3")

    for link in ("http://b\udcff.example/a.mp3", "http://b ü.example/a.mp3"):
        with pytest.raises(ax.DownloadError, match="cannot be requested"):
            await save(song_of(link), tmp_path)
    with pytest.raises(ax.DownloadError, match=r"a link to xn--bcher-kva\.invalid is not"):
        await save(song_of(host.put("/go", moved)), tmp_path)


async def test_a_redirect_may_be_relative(host: Host, tmp_path: Path) -> None:
    """A relative redirect is resolved against the URL that it came from."""
    host.put("/f/b%2Fc.mp3?s=%2B", gives())
    link = host.put("/f/a.mp3?x", gives(b"", status=302, Location="b%2Fc.mp3?s=%2B"))

    await save(song_of(link), tmp_path)

    assert ["/f/a.mp3?x", "/f/b%2Fc.mp3?s=%2B"] == host.paths


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_all_redirects_are_followed_to_another_host(status: int, host: Host, tmp_path: Path) -> None:
    """Redirects to another host are followed, also for a range request."""
    async with serve_host() as storage:
        signed = storage.put("/a%2Fb?sig=%2B", breaks(after=5_000), breaks(after=len(MP3)))
        (path,) = await save(song_of(host.put(PATH, gives(b"", status=status, Location=signed))), tmp_path)

        assert MP3 == path.read_bytes()
        assert [None, "bytes=5000-"] == storage.header("Range")


async def test_a_cookie_of_a_redirect_goes_back_to_its_host_alone(host: Host, tmp_path: Path) -> None:
    """A cookie set by a redirect is sent only to the host that set it, and is forgotten after the download."""
    named, rules = host.url.replace("127.0.0.1", "localhost"), LinkRules(opened=frozenset(hosts_of_api(URL(host.url))))
    link = host.put("/1.mp3", gives(b"", status=302, Location="/2.mp3", Set_Cookie="pass=1; Path=/"))
    host.put("/2.mp3", gives(b"", status=302, Location=f"{named}/3.mp3"))
    host.put("/3.mp3", gives())

    for _ in range(2):
        await Downloader(rules=rules, transport=Transport()).save(song_of(link), tmp_path)

    assert [None, "pass=1", None] * 2 == host.header("Cookie")


@pytest.mark.parametrize(
    ("location", "says"),
    [
        (PATH, "redirects more than 10 times"),
        ("file:///etc/passwd", "redirects to 'file:///etc/passwd', which cannot be requested"),
        ("http://[", "redirects to .*, which cannot be requested"),
    ],
)
async def test_a_redirect_loop_is_an_error(location: str, says: str, host: Host, tmp_path: Path) -> None:
    """A redirect loop, or a redirect to a scheme other than http, raises an error."""
    with pytest.raises(ax.DownloadError, match=says):
        await save(song_of(host.put(PATH, gives(b"", status=302, Location=location))), tmp_path)


# --- trying again ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [202, 204, 403, 404, 408, 425, 429, 500, 502, 503, 504])
async def test_a_fresh_link_is_tried_again(status: int, host: Host, loop_time: LoopTime, tmp_path: Path) -> None:
    """A link that is not ready is retried, since storage may lag behind the callback (issue 8, S03)."""
    refusal = gives(b"not yet", status=status)

    (path,), seconds = await loop_time.run(save(song_of(host.put(PATH, *[refusal] * 4, gives())), tmp_path))

    assert MP3 == path.read_bytes()
    assert 5 == len(host.seen)
    assert 7.5 <= seconds < 30  # 0.5, 1, 2, 4


async def test_a_fresh_file_may_be_empty_at_first(host: Host, loop_time: LoopTime, tmp_path: Path) -> None:
    """An empty file from a fresh link is retried, and raises an error if it stays empty; from a stale link at once."""
    (path,), _ = await loop_time.run(save(song_of(host.put(PATH, gives(b""), gives())), tmp_path))
    assert MP3 == path.read_bytes()

    async def refused(*, is_fresh: bool) -> None:
        with pytest.raises(ax.DownloadError, match="the file is empty"):
            await save(song_of(host.put(PATH, gives(b""))), tmp_path, is_fresh=is_fresh)

    for is_fresh, least in ((True, 30), (False, 0)):
        _, seconds = await loop_time.run(refused(is_fresh=is_fresh), step=1.0)
        assert least <= seconds < least + 30


async def test_a_fresh_link_may_show_a_page_at_first(host: Host, loop_time: LoopTime, tmp_path: Path) -> None:
    """A page or an error text with status 200 is like an error status: the link is retried, or else it is dead."""
    for page in (b"<html>soon</html>", b"\xef\xbb\xbf<?xml version='1.0'?><Error/>", b' {"error": "not ready"}'):
        (path,), _ = await loop_time.run(save(song_of(host.put(PATH, gives(page), gives())), tmp_path))
        assert MP3 == path.read_bytes()

    host.put(PATH, gives(b"<html>expired</html>"))
    host.seen.clear()
    with pytest.raises(ax.DownloadError, match="a page or an error text, '<html>expired</html>', not audio"):
        await save(song_of(host.url + PATH), tmp_path, is_fresh=False)
    assert STALE_TRIES == len(host.seen)


async def test_a_download_waits_as_long_as_retry_after_says(host: Host, loop_time: LoopTime, tmp_path: Path) -> None:
    """A download waits as long as Retry-After says, even when our own pause is shorter (issue 8, S16)."""
    link = host.put(PATH, gives(b"slow", status=429, Retry_After="100"), gives())

    _, seconds = await loop_time.run(save(song_of(link), tmp_path), step=5.0)

    assert 100 <= seconds < 130


async def test_retry_after_0_does_not_remove_the_pause(host: Host, loop_time: LoopTime, tmp_path: Path) -> None:
    """`Retry-After: 0` does not remove the pause between retries."""
    link = host.put(PATH, gives(b"slow", status=429, Retry_After="0"))

    with pytest.raises(ax.DownloadError, match="HTTP 429"):
        await loop_time.run(save(song_of(link), tmp_path))

    assert 5 <= len(host.seen) <= 9


@pytest.mark.parametrize(
    ("status", "is_dead"),
    [
        (400, True),
        (401, True),
        (403, True),
        (404, True),
        (409, False),
        (421, False),
        (423, False),
        (429, False),
        (503, False),
    ],
)
async def test_a_failing_download_is_retried_for_half_a_minute(  # noqa: PLR0913 - each is a fixture or a case
    status: int, is_dead: bool, host: Host, loop_time: LoopTime, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After half a minute without a byte the last answer is raised; that it is retried is logged at the first one."""
    caplog.set_level("INFO", "audioext.files.fetching")
    link = host.put(PATH, gives(b"no", status=status))

    async def refused() -> None:
        with pytest.raises(ax.DownloadError, match=f"HTTP {status}"):
            await save(song_of(link), tmp_path)

    _, seconds = await loop_time.run(refused(), step=1.0)

    assert 30 <= seconds < 60
    assert 1 == len(caplog.messages)
    assert caplog.messages[0].startswith(f"HTTP {status} from 127.0.0.1")
    assert caplog.messages[0].endswith("; trying again for up to 30 s")
    host.seen.clear()
    if is_dead:
        with pytest.raises(ax.DownloadError, match="has probably expired"):
            await save(song_of(link), tmp_path, is_fresh=False)
        assert STALE_TRIES == len(host.seen)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (gives(b"", status=410), "HTTP 410 .* expired"),
        (gives(b"", status=451), "HTTP 451"),
        (gives(b"", status=429, Retry_After="900"), "asks to wait 900 s"),
    ],
)
async def test_a_download_error_that_waiting_cannot_cure_is_raised_at_once(
    answer: Answer, says: str, host: Host, tmp_path: Path
) -> None:
    """A 410, a 451 or a Retry-After of a quarter of an hour raises an error at once."""
    with pytest.raises(ax.DownloadError, match=says):
        await save(song_of(host.put(PATH, answer)), tmp_path)

    assert 1 == len(host.seen)


async def test_an_unreachable_server_is_an_error(unused_tcp_port: int, loop_time: LoopTime, tmp_path: Path) -> None:
    """A link whose server cannot be reached raises an error with the cause."""
    with pytest.raises(ax.DownloadError, match="ClientConnectorError at 127"):
        await loop_time.run(save(song_of(f"http://127.0.0.1:{unused_tcp_port}/a.mp3"), tmp_path))


async def test_a_download_has_a_deadline(host: Host, loop_time: LoopTime, tmp_path: Path) -> None:
    """A download from a host that sends a byte now and then ends at its deadline."""
    over = asyncio.Event()

    async def drip(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1_000_000
        await response.prepare(request)
        while not over.is_set():
            await response.write(b"\xff")
            with suppress(TimeoutError):
                async with asyncio.timeout(50):
                    await over.wait()
        return response

    async def refused() -> None:
        with pytest.raises(ax.DownloadError, match=r"did not send all of it in time \(\d+ bytes came\)"):
            await save(song_of(host.put(PATH, drip)), tmp_path)

    _, seconds = await loop_time.run(refused(), step=10.0)
    over.set()

    assert 890 <= seconds < 1_100
    assert [] == list(tmp_path.iterdir())


async def test_a_download_writes_through_no_foreign_symlink(host: Host, tmp_path: Path) -> None:
    """In a folder that others can write, a download never writes through a symlink put in place of its partial file."""
    mine, folder = tmp_path / "mine", tmp_path / "out"
    mine.write_bytes(b"mine")

    async def swaps(request: web.BaseRequest) -> web.StreamResponse:
        (part,) = folder.iterdir()
        part.unlink()
        part.symlink_to(mine)
        return await gives()(request)

    with pytest.raises(ax.DownloadError, match="cannot write into"):
        await save(song_of(host.put(PATH, breaks(after=6_000), swaps)), folder)
    assert (b"mine", []) == (mine.read_bytes(), [*folder.iterdir()])


# --- resuming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_broken_transfer_is_resumed(is_chunked: bool, host: Host, loop_time: LoopTime, tmp_path: Path) -> None:
    """A broken transfer resumes after the bytes received if the file's strong tag is the same, whatever its date."""
    first = breaks(after=6_000, is_chunked=is_chunked, ETag='"v1"', Last_Modified="Thu, 26 Nov 2026 10:00:00 GMT")
    second = breaks(after=3_000, ETag='"v1"', Last_Modified="Thu, 26 Nov 2026 11:00:00 GMT")
    link = host.put(PATH, first, second, breaks(after=len(MP3)))

    (path,), _ = await loop_time.run(save(song_of(link), tmp_path))

    assert MP3 == path.read_bytes()
    assert [None, "bytes=6000-", "bytes=9000-"] == host.header("Range")
    assert [None, '"v1"', '"v1"'] == host.header("If-Range")


async def test_a_host_without_ranges_sends_the_file_from_its_start(
    host: Host, loop_time: LoopTime, tmp_path: Path
) -> None:
    """A host without ranges sends the file from its start, and the bytes already received are skipped."""
    link = host.put(PATH, breaks(after=6_000), gives())

    (path,), _ = await loop_time.run(save(song_of(link), tmp_path))

    assert MP3 == path.read_bytes()


@pytest.mark.parametrize("content_range", ["bytes 5-9/10", "bytes */10", "", "lines 6000-"])
async def test_a_wrong_range_makes_the_whole_file_requested(
    content_range: str, host: Host, loop_time: LoopTime, tmp_path: Path
) -> None:
    """A host that returns a wrong range is asked for the whole file."""
    wrong = gives(b"x" * 100, status=206, Content_Range=content_range)

    (path,), _ = await loop_time.run(save(song_of(host.put(PATH, breaks(after=6_000), wrong, gives())), tmp_path))

    assert MP3 == path.read_bytes()
    assert [None, "bytes=6000-", None] == host.header("Range")


@pytest.mark.parametrize("status", [400, 401, 403, 405, 412, 416, 501])
async def test_a_refused_range_makes_the_whole_file_requested(
    status: int, host: Host, loop_time: LoopTime, tmp_path: Path
) -> None:
    """A host that refuses a range, or a signature that does not cover it, is asked for the whole file."""
    link = host.put(PATH, breaks(after=6_000), gives(b"no", status=status), gives())

    (path,), _ = await loop_time.run(save(song_of(link), tmp_path, is_fresh=False))

    assert MP3 == path.read_bytes()
    assert [None, "bytes=6000-", None] == host.header("Range")


async def test_more_than_the_stated_bytes_are_an_error(host: Host, loop_time: LoopTime, tmp_path: Path) -> None:
    """A host that sends more bytes than it states sends something else as well, and the file is not saved."""
    more = gives(MP3[6_000:] + b"more", status=206, Content_Range=REST)

    with pytest.raises(ax.DownloadError, match=f"sent {len(MP3) + 4} bytes of a file of {len(MP3)}"):
        await loop_time.run(save(song_of(host.put(PATH, breaks(after=6_000), more)), tmp_path))

    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("other", [OTHER_MP3, OTHER_MP3[: len(MP3)].ljust(len(MP3), b"\0")])
async def test_a_file_that_changed_between_tries_is_an_error(
    other: bytes, host: Host, loop_time: LoopTime, tmp_path: Path
) -> None:
    """A file that changed between two tries raises an error, whatever its length."""
    link = host.put(PATH, breaks(after=6_000, ETag='"v1"'), gives(other, ETag='"v2"'))

    with pytest.raises(ax.DownloadError, match="a different file than before"):
        await loop_time.run(save(song_of(link), tmp_path))

    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (breaks(after=6_000, ETag='"v1"'), gives(OTHER_REST, status=206, Content_Range=REST, ETag='"v2"')),
        (
            breaks(after=6_000, Last_Modified="Thu"),
            gives(OTHER_REST, status=206, Content_Range=REST, Last_Modified="Fri"),
        ),
    ],
)
async def test_a_range_of_a_changed_file_is_discarded(
    first: Answer, second: Answer, host: Host, loop_time: LoopTime, tmp_path: Path
) -> None:
    """A range of a changed file, from a host that ignores If-Range, is discarded, and the whole file is requested."""
    (path,), _ = await loop_time.run(save(song_of(host.put(PATH, first, second, gives())), tmp_path))

    assert MP3 == path.read_bytes()
    assert [None, "bytes=6000-", None] == host.header("Range")


@pytest.mark.parametrize("end", [len(MP3), 5_000])
async def test_a_host_may_answer_in_parts_unasked(end: int, host: Host, loop_time: LoopTime, tmp_path: Path) -> None:
    """A 206 that nobody asked for is accepted, and the rest is requested."""
    part = gives(MP3[:end], status=206, Content_Range=f"bytes 0-{end - 1}/{len(MP3)}")

    (path,), _ = await loop_time.run(save(song_of(host.put(PATH, part, breaks(after=len(MP3)))), tmp_path))

    assert MP3 == path.read_bytes()
    assert [None, "bytes=5000-"][: len(host.seen)] == host.header("Range")


@pytest.mark.parametrize("status", [200, 203])
async def test_a_compressed_transfer_starts_again_when_it_breaks(
    status: int, host: Host, loop_time: LoopTime, tmp_path: Path
) -> None:
    """A compressed transfer has no known length, and starts again from the beginning when it breaks."""
    packed = gives(gzip.compress(MP3), status=status, Content_Encoding="gzip")
    link = host.put(PATH, breaks(gzip.compress(MP3), after=6_000, Content_Encoding="gzip"), packed)

    (path,), _ = await loop_time.run(save(song_of(link), tmp_path))

    assert MP3 == path.read_bytes()
    assert [None, None] == host.header("Range")


async def test_a_range_of_compressed_bytes_states_no_length_of_the_file(host: Host, tmp_path: Path) -> None:
    """A host that answers every request with 206 and compresses states the compressed size: the file may be longer."""
    sound = b"ID3\x04\0\0\0\0\x3e\x40" + bytes(8_000) + MP3  # a tag of zeros packs well
    packed = gzip.compress(sound)
    stated = f"bytes 0-{len(packed) - 1}/{len(packed)}"
    link = host.put(PATH, gives(packed, status=206, Content_Encoding="gzip", Content_Range=stated))

    (path,) = await save(song_of(link), tmp_path)

    assert sound == path.read_bytes()


@pytest.mark.parametrize("label", ["gzip", "deflate", "br", "aws-chunked", "utf-8"])
async def test_a_file_may_be_labelled_as_compressed(
    label: str, host: Host, loop_time: LoopTime, tmp_path: Path
) -> None:
    """A file whose Content-Encoding is wrong is taken as it is: its bytes decide, not its label."""
    link = host.put(PATH, gives(Content_Encoding=label))

    (path,), _ = await loop_time.run(save(song_of(link), tmp_path))

    assert MP3 == path.read_bytes()


async def test_a_session_that_unpacks_nothing_gets_whole_files(host: Host) -> None:
    """With a user's session that unpacks no answers, a compressed file is unpacked all the same."""
    link = host.put(PATH, gives(gzip.compress(MP3), Content_Encoding="gzip"))

    async with aiohttp.ClientSession(auto_decompress=False) as session:
        downloader = Downloader(rules=LOOPBACK, transport=Transport(given=session))
        assert MP3 == await downloader.read(ax.Track(audio_url=link))


async def test_a_transfer_that_broke_after_its_last_byte_is_whole(
    host: Host, loop_time: LoopTime, tmp_path: Path
) -> None:
    """A transfer without a length that broke at its end is whole when the host says that no bytes are left."""
    end = gives(b"", status=416, Content_Range=f"bytes */{len(MP3)}")

    (path,), _ = await loop_time.run(
        save(song_of(host.put(PATH, breaks(after=len(MP3), is_chunked=True), end)), tmp_path)
    )

    assert MP3 == path.read_bytes()


@settings(max_examples=settings().max_examples // 2)
@given(
    st.lists(st.tuples(st.integers(1, len(MP3)), st.booleans(), st.booleans()), max_size=4),
    st.booleans(),
)
def test_any_breaks_give_the_same_bytes(breaking: list[tuple[int, bool, bool]], has_ranges: bool) -> None:
    """Each byte arrives once wherever a transfer breaks, with or without ranges and a length."""

    async def fetched() -> bytes:
        async with serve_host() as host:
            answers = [breaks(after=after, is_chunked=chunked) for after, chunked, resumes in breaking if resumes]
            answers += [gives()] if not has_ranges else [breaks(after=len(MP3))]
            transport = Transport()
            track = ax.Track(audio_url=host.put(PATH, *answers))
            data = await Downloader(rules=LOOPBACK, transport=transport).read(track)
            await transport.aclose()
            return data

    async def jumping() -> bytes:
        patch = pytest.MonkeyPatch()
        try:
            return (await LoopTime(patch).run(fetched()))[0]
        finally:
            patch.undo()

    assert MP3 == asyncio.run(jumping())


# --- saving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        *("text/plain", "text/html", "application/force-download", "application/mp3", "audio/x-mp3", "image/png"),
        *("binary/octet-stream", "audio/wav", "nonsense"),
    ],
)
async def test_the_content_type_of_a_file_is_ignored(kind: str, host: Host, tmp_path: Path) -> None:
    """The bytes of a file decide its format, not its Content-Type (issue 8, S04, S17-S19)."""
    (path,) = await save(song_of(host.put(PATH, gives(kind=kind))), tmp_path)

    assert "Rain.mp3" == path.name


@pytest.mark.parametrize(("data", "suffix"), [(WAV, ".wav"), (mp4(seconds=4), ".m4a"), (MP3, ".mp3")])
async def test_the_suffix_follows_the_bytes(data: bytes, suffix: str, host: Host, tmp_path: Path) -> None:
    """The suffix follows the bytes of the file, not the link."""
    (path,) = await save(song_of(host.put(PATH, gives(data))), tmp_path)

    assert (f"Rain{suffix}", data) == (path.name, path.read_bytes())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (gives(b"x"), "is text, 'x', not audio"),
        (gives(b"<html>gone</html>"), "a page or an error text"),
        (gives(b"\x89PNG\r\n\x1a\n" + bytes(99)), "a picture"),
        (gives(bytes(9_999)), "nothing but zeros"),
        (gives(MP3[: len(MP3) // 2]), f"only {len(MP3) // 2} of "),
        (gives(), "byte for byte the same as Rain - take 1"),
        (gives(status=410), "HTTP 410"),
    ],
)
async def test_a_bad_file_is_an_error_and_the_good_one_is_saved(
    answer: Answer, says: str, host: Host, loop_time: LoopTime, tmp_path: Path
) -> None:
    """A bad file raises an error with the reason, the other track is saved, and no partial file is left."""
    good, bad = host.put("/good.mp3", gives()), host.put("/bad.mp3", answer)

    with pytest.raises(ax.DownloadError, match=says) as caught:
        await loop_time.run(save(song_of(good, bad), tmp_path), step=1.0)

    assert ["Rain - take 1.mp3"] == [path.name for path in caught.value.paths]
    assert ["Rain - take 1.mp3"] == [path.name for path in tmp_path.iterdir()]


async def test_a_file_shorter_than_its_track_is_an_error(host: Host, tmp_path: Path) -> None:
    """A file that is shorter than the duration the vendor gave for its track raises an error."""
    with pytest.raises(ax.DownloadError, match=r"only 4\.1 s of a track of 9\.0 s arrived"):
        await save(song_of(host.put(PATH, gives()), duration=9.0), tmp_path)


async def test_saving_again_finds_the_file(host: Host, tmp_path: Path) -> None:
    """Saving the same bytes again reuses the file; another file of that name makes the new one get a number."""
    one, two = song_of(host.put("/1", gives())), song_of(host.put("/2", gives(OTHER_MP3)))

    names = [(await save(song, tmp_path))[0].name for song in (one, one, two, two, one)]
    names += [(await save(two, tmp_path, overwrite=True))[0].name]

    assert ["Rain.mp3", "Rain.mp3", "Rain (2).mp3", "Rain (2).mp3", "Rain.mp3", "Rain.mp3"] == names
    assert ["Rain (2).mp3", "Rain.mp3"] == sorted(path.name for path in tmp_path.iterdir())


async def test_the_takes_of_a_song_get_the_same_number(host: Host, tmp_path: Path) -> None:
    """If one name is taken, both takes get the same number and are found again; with overwrite=True neither does."""
    (tmp_path / "Rain - take 2.mp3").write_bytes(b"mine")
    song = song_of(host.put("/1", gives()), host.put("/2", gives(OTHER_MP3)))

    names = [[path.name for path in await save(song, tmp_path)] for _ in range(2)]

    assert [["Rain - take 1 (2).mp3", "Rain - take 2 (2).mp3"]] * 2 == names
    assert b"mine" == (tmp_path / "Rain - take 2.mp3").read_bytes()
    assert 3 == len([*tmp_path.iterdir()])
    assert {"Rain - take 1.mp3", "Rain - take 2.mp3"} == {
        path.name for path in await save(song, tmp_path, overwrite=True)
    }


async def test_a_file_system_without_links_keeps_the_users_file(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file system without hard links still never overwrites a user's file (attack A12)."""

    def link(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    (tmp_path / "Rain.mp3").write_bytes(b"mine")

    (path,) = await save(song_of(host.put(PATH, gives())), tmp_path)

    assert ("Rain (2).mp3", MP3, b"mine") == (path.name, path.read_bytes(), (tmp_path / "Rain.mp3").read_bytes())
    assert 2 == len([*tmp_path.iterdir()])


async def test_a_folder_with_the_files_name_is_left_alone(host: Host, tmp_path: Path) -> None:
    """A folder that has the name of a file to save is left alone."""
    (tmp_path / "Rain.mp3").mkdir()

    (path,) = await save(song_of(host.put(PATH, gives())), tmp_path)

    assert "Rain (2).mp3" == path.name


async def test_a_folder_in_place_of_a_file_is_an_error_with_overwrite(host: Host, tmp_path: Path) -> None:
    """With overwrite=True a folder that has the name stays, that track raises an error, and the other is saved."""
    (tmp_path / "Rain - take 1.mp3").mkdir()
    song = song_of(host.put("/1", gives()), host.put("/2", gives(OTHER_MP3)))

    with pytest.raises(ax.DownloadError, match=r"cannot be named Rain - take 1\.mp3 in .*: Is a directory") as caught:
        await save(song, tmp_path, overwrite=True)

    assert ["Rain - take 2.mp3"] == [path.name for path in caught.value.paths]
    assert ["Rain - take 1.mp3", "Rain - take 2.mp3"] == sorted(path.name for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("title", "source", "name"),
    [
        ("Rain", "voice", "Rain.mp3"),
        ("rain.mp3", None, "rain.mp3"),
        ("rain.wav", None, "rain.wav.mp3"),
        (None, "my voice", "my voice.mp3"),
        ("///", None, "r" * 24 + ".mp3"),
    ],
)
async def test_files_are_named_after_the_title_else_the_source(
    title: str | None, source: str | None, name: str, host: Host, tmp_path: Path
) -> None:
    """Files are named after the title, else the source, else the job's ref."""
    (path,) = await save(song_of(host.put(PATH, gives()), title=title, source=source), tmp_path)

    assert name == path.name


async def test_a_folder_that_cannot_be_made_is_an_error(host: Host, tmp_path: Path) -> None:
    """A file where the folder should be raises a DownloadError that says what is needed."""
    (tmp_path / "taken").write_text("x")

    with pytest.raises(ax.DownloadError, match="taken: it is a file, and save takes a folder"):
        await save(song_of(host.put(PATH, gives())), tmp_path / "taken")

    for folder in (tmp_path / "taken", tmp_path / "taken" / "in", tmp_path / "a\0b", tmp_path / ("x" * 300)):
        with pytest.raises(ax.DownloadError, match="cannot make the folder"):
            await save(song_of(host.put(PATH, gives())), folder)


async def test_a_folder_that_may_not_be_entered_is_told(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A folder in which nothing may be made or removed raises a DownloadError, not the error of the cleaning up."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)

    with pytest.raises(ax.DownloadError, match=r"Rain: cannot write into .*: Permission denied"):
        await save(song_of(host.put(PATH, gives())), tmp_path)


# --- reading and streaming -------------------------------------------------------------------------------------------


async def test_a_track_can_be_read_and_streamed(host: Host, loop_time: LoopTime) -> None:
    """A track can be read and streamed without a file, and a broken stream resumes."""
    downloader = Downloader(rules=LOOPBACK, transport=Transport())
    link = host.put(PATH, breaks(after=20), breaks(after=5_000), breaks(after=len(MP3)))
    chunks: list[bytes] = []

    async def listen() -> None:
        chunks.extend([chunk async for chunk in downloader.stream(ax.Track(audio_url=link))])

    await loop_time.run(listen())

    assert MP3 == b"".join(chunks)
    assert len(chunks) > 1
    assert MP3 == await downloader.read(ax.Track(audio_url=link))


async def test_a_stream_yields_bytes_as_they_arrive(host: Host) -> None:
    """A stream yields its first bytes before the last are sent, and closes its connection when it is left early."""
    may_end = asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for begin in itertools.pairwise((0, 1, 100, len(MP3))):
            await response.write(MP3[slice(*begin)])
        await may_end.wait()
        return response

    stream = Downloader(rules=LOOPBACK, transport=Transport()).stream(ax.Track(audio_url=host.put(PATH, slow)))
    first = await anext(stream)
    await stream.aclose()
    may_end.set()

    assert MP3.startswith(first)


@pytest.mark.parametrize("data", [b"", b"<html>", b"gone" * 99])
async def test_a_stream_that_is_not_audio_yields_nothing(data: bytes, host: Host) -> None:
    """A stream that does not begin like audio raises an error before its first chunk."""
    track = ax.Track(title="Rain", audio_url=host.put(PATH, gives(data)))

    with pytest.raises(ax.DownloadError, match="Rain: "):
        await anext(Downloader(rules=LOOPBACK, transport=Transport(), patience=0.1).stream(track))


async def test_reading_checks_as_saving_does(host: Host) -> None:
    """Reading a truncated file raises an error, and so does reading a track that has no file yet."""
    downloader = Downloader(rules=LOOPBACK, transport=Transport())

    with pytest.raises(ax.DownloadError, match=r"only \d+ of \d+ bytes arrived"):
        await downloader.read(ax.Track(audio_url=host.put(PATH, gives(MP3[:9_000]))))
    with pytest.raises(ax.DownloadError, match="no file yet"):
        await downloader.read(ax.Track(id="a"))
    with pytest.raises(ax.DownloadError, match="the link '' cannot be requested"):
        await downloader.read(ax.Track(audio_url=""))
    with pytest.raises(ax.ConfigError, match="not made by a client"):
        await ax.Track(id="a").read()
