"""The kind and completeness of an audio file, decided by its bytes."""

from __future__ import annotations

import hashlib
import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audioext.files.formats import BadFileError, audio_info, check_head, seconds_of
from tests.support.sounds import FLAC, MP3, WAV, adts, box, mp4, streamed_wav, webm
from tests.support.tables import each_row

PACKED = hashlib.shake_256().digest(50_000)
FILES = {
    ".mp3": MP3,
    ".wav": WAV,
    ".flac": FLAC,
    ".m4a": mp4(seconds=4),
    ".aac": adts(seconds=4),
    ".webm": webm(seconds=4.0),
}


def heard(data: bytes, *, stated: float | None = None) -> tuple[str, float] | str:
    """Return what `audio_info` finds in *data*, or the text of its error."""
    try:
        return audio_info(io.BytesIO(data), stated=stated)
    except BadFileError as error:
        return str(error)


@each_row("suffix", FILES)
def test_format_and_duration_are_read_from_the_bytes(suffix: str) -> None:
    """Each format that vendors send is recognised and measured from its bytes alone."""
    found = heard(FILES[suffix])

    assert isinstance(found, tuple)
    assert (suffix, 4) == (found[0], round(found[1]))
    check_head(FILES[suffix][:64])


@each_row(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"x", "text, 'x'"),
        (b"Access denied\n" * 40, "text, 'Access denied"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "a page or an error text"),
        (b'  {"detail": "gone"}', "a page or an error text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "a picture"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "a picture"),
        (bytes(50_000), "nothing but zeros"),
        (b"\x7fELF" + bytes(200), "no known audio format"),
        (b"ID3\x04\0\0\0\0\0\0" + bytes(500), "no known audio format"),
    ],
)
def test_bytes_that_are_not_audio_are_named(data: bytes, says: str) -> None:
    """Bytes that are not audio raise an error that says what they are; version 0.1 saved some of these as .mp3."""
    found = heard(data)

    assert isinstance(found, str)
    assert says in found


@each_row("suffix", [".mp3", ".wav", ".m4a", ".webm"])
def test_half_a_file_is_refused(suffix: str) -> None:
    """Half a file is refused, since its header says that there is more."""
    found = heard(FILES[suffix][: len(FILES[suffix]) // 2])

    assert isinstance(found, str)
    assert " bytes arrived" in found


@each_row("share", [0.001, 0.01, 0.2, 0.5, 0.8])
def test_a_flac_file_that_was_cut_short_is_refused(share: float) -> None:
    """A FLAC file whose last frame is not the last that its head announces is refused."""
    found = heard(FLAC[: 200 + int(len(FLAC) * share)])

    assert isinstance(found, str)
    assert " s of a track of 4.0 s arrived" in found


def test_a_flac_file_whose_last_frame_is_not_found_passes() -> None:
    """A FLAC file is taken if its last frame is further from its end than any real one."""
    assert isinstance(heard(FLAC[:8_000] + b"\xff\xf8" * 400_000), tuple)


def test_sound_that_looks_like_an_early_frame_cuts_no_flac_file() -> None:
    """Sound in the last frame of a FLAC file that looks like the head of its first frame does not get it refused."""
    first = FLAC.index(b"\xff\xf8")

    assert heard(FLAC) == heard(FLAC + FLAC[first : first + 16])


def test_a_flac_file_of_one_block_of_its_own_size_is_whole() -> None:
    """A FLAC file with blocks of several sizes is as long as its last block's number and one block more."""
    # RFC 9639, 8.2: blocks of 16 to 40,000 samples at 8 kHz, 40,000 in all; then the head of a frame, of sample 0.
    info = bytes((0, 16, 0x9C, 0x40)) + bytes(6) + (8_000 << 44 | 15 << 36 | 40_000).to_bytes(8, "big") + bytes(16)
    data = b"fLaC\x80\0\0\x22" + info + b"\xff\xf9\x74\x08\0\x9c\x3f" + b"\x1c" + bytes(4_000)

    assert (".flac", 5.0) == heard(data)


@each_row("data", [webm(seconds=None, is_sized=False), webm(seconds=float("nan"))])
def test_a_recorded_webm_states_no_length(data: bytes) -> None:
    """A WebM file that was made while recording states no length, so none can be wrong."""
    assert (".webm", 0.0) == heard(data, stated=9.0)


def test_an_aac_stream_may_be_tagged_and_cut() -> None:
    """An AAC stream may begin with an ID3 tag, and is measured up to its last whole frame."""
    tagged = b"ID3\x04\0\x10\0\0\0\x02" + bytes(12) + adts(seconds=4)

    assert heard(adts(seconds=4)) == heard(tagged)
    assert "only 1.9 s of a track of 4.0 s arrived" == heard(tagged[: len(tagged) // 2], stated=4.0)


def test_joined_segments_of_an_aac_stream_are_measured_together() -> None:
    """An AAC stream of joined segments, each of which begins with an ID3 tag, is as long as all of them."""
    segment = b"ID3\x04\0\0\0\0\0\x02" + bytes(2) + adts(seconds=2)

    (_, once), (_, thrice) = audio_info(io.BytesIO(segment)), audio_info(io.BytesIO(3 * segment))

    assert 3 * once == pytest.approx(thrice)


def test_no_more_than_a_day_of_an_aac_stream_is_measured() -> None:
    """A hostile AAC stream of the shortest frames is measured up to a day, which takes seconds, not minutes."""
    _, seconds = audio_info(io.BytesIO(adts(seconds=100_000, frame=0)))

    assert 86_400.0 == pytest.approx(seconds, abs=1)


@each_row("data", [b"\xff\xf1" + bytes(500), b"\x1a\x45\xdf\xa3\x87\x42\x82\x84webm" + bytes(500)])
def test_a_first_word_alone_is_no_audio(data: bytes) -> None:
    """The first word of an AAC stream or of a WebM file is not enough."""
    assert isinstance(heard(data), str)


def test_a_file_shorter_than_its_track_is_refused() -> None:
    """A file that is shorter than its track is refused, if the file itself does not say how long it is."""
    found = heard(MP3, stated=9.0)

    assert "only 4.1 s of a track of 9.0 s arrived" == found


@each_row("stated", [None, 1.0, 4.0, 4.4, 4_000.0, 4_104.0])
def test_a_length_that_is_about_right_passes(stated: float | None) -> None:
    """A stated duration may be rounded, in milliseconds, or that of a part."""
    assert isinstance(heard(MP3, stated=stated), tuple)


def test_a_stated_length_in_milliseconds_is_checked_too() -> None:
    """A file that is too short for a duration in milliseconds is refused, too."""
    assert "only 4.1 s of a track of 9.0 s arrived" == heard(MP3, stated=9_000.0)


@each_row("size", [0, 0xFFFF_FFFF, 0x7FFF_FFFF])
def test_a_streamed_wav_is_measured_by_its_bytes(size: int) -> None:
    """A streamed WAV, whose header claims no size or the largest, is measured by its bytes."""
    found = heard(streamed_wav(seconds=2, claimed=size))

    assert isinstance(found, tuple)
    assert 2.0 == pytest.approx(found[1], abs=0.01)


def test_a_box_may_go_on_to_the_end_of_the_file() -> None:
    """MP4 boxes may have a 64-bit size, and the last one may have none (ISO/IEC 14496-12, 4.2)."""
    head = box(b"ftyp", b"M4A \0\0\0\0") + mp4(seconds=4)[16:].partition(b"mdat")[0][:-4]
    long = struct.pack(">I4sQ", 1, b"mdat", 16 + 100) + bytes(100)

    assert isinstance(heard(head + struct.pack(">I4s", 0, b"mdat") + bytes(500)), tuple)
    assert isinstance(heard(head + long), tuple)
    assert isinstance(heard(head + long[:-1]), str)


def length_of(data: bytes) -> float | str | None:
    """Return what `seconds_of` finds in *data*, or the text of its error."""
    try:
        return seconds_of(io.BytesIO(data))
    except BadFileError as error:
        return str(error)


@each_row(
    ("data", "length"),
    [
        (MP3, 4),
        (WAV, 4),
        (FLAC, 4),
        (mp4(seconds=4), 4),
        (streamed_wav(seconds=4, claimed=0xFFFFFFFF), 4),
        (streamed_wav(seconds=4, claimed=0), 4),
        (WAV[: len(WAV) // 2], 2),
        (MP3[1_001:], None),
        (bytes(700) + MP3, None),
        (400 * (b"\xff\xf1\x50\x80\x2b\x9f\xfc" + MP3[1_000:1_400]), None),
    ],
)
def test_a_source_is_as_long_as_its_bytes_say(data: bytes, length: float | None) -> None:
    """A header written before the length was known, a cut MP3, and AAC, in which MP3 is found, give no wrong length."""
    found = length_of(data)

    assert not isinstance(found, str)
    assert length == (None if found is None else round(found))


def test_zeros_after_the_sound_are_not_searched() -> None:
    """A WAV with a gap of zeros behind its sound, as a crashed recorder leaves it, is measured from its beginning."""

    class Counts(io.BytesIO):
        read_so_far = 0

        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            self.read_so_far += len(data)
            return data

    file = Counts(WAV + bytes(20_000_000))

    assert 4 == round(seconds_of(file) or 0)
    assert (".wav", 4) == (audio_info(file)[0], round(audio_info(file)[1]))
    assert file.read_so_far < 4_000_000


@each_row(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + PACKED,
        b"PK\x03\x04" + PACKED,
        "hello world".encode("utf-16") * 50,
        b"#EXTM3U\n#EXTINF:4,a\nvoice.wav\n",
        bytes(50_000),
    ],
)
def test_a_source_full_of_anything_else_is_refused(data: bytes) -> None:
    """Packed data has bytes that look like an MP3 frame, and is still no audio, whatever the file is called."""
    assert "is not an audio file" == length_of(data)


@given(st.binary(max_size=400), st.sampled_from([b"", b"ID3\x04\0\0\0\0\0\0", *(data[:90] for data in FILES.values())]))
def test_any_bytes_are_audio_or_refused(data: bytes, begin: bytes) -> None:
    """Any bytes are audio or raise a `BadFileError`, never another error."""
    assert isinstance(heard(begin + data, stated=3.0), tuple | str)
