"""The sandbox's audio: real files in, real music out."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from audioext.sandbox.audio import (
    FORMATS_READ,
    JOINT_SECONDS,
    SOURCE_GAIN,
    AudioError,
    Clip,
    Samples,
    accompany,
    encode,
    extend,
    load,
    resample,
    tune,
    voice,
)

RATE = 16_000


def written(samples: Samples | npt.NDArray[np.int16], rate: int, kind: str, subtype: str | None = None) -> bytes:
    """Return a file as another program would write it."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def sine(seconds: float, rate: int = RATE, *, channels: int = 1, level: float = 0.4) -> Clip:
    """Return a plain tone."""
    mono = level * np.sin(2 * np.pi * 440 * np.arange(max(1, round(seconds * rate))) / rate)
    return Clip(np.repeat(mono[:, None], channels, axis=1).astype(np.float32), rate)


def to_mono(samples: Samples) -> npt.NDArray[np.float64]:
    """Return the mean of all channels."""
    return np.asarray(samples.mean(axis=1), np.float64)


def rms(samples: npt.NDArray[np.floating]) -> float:
    """Return the root mean square over all frames and channels."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


def levels(mono: npt.NDArray[np.floating], hop: int) -> npt.NDArray[np.float64]:
    """Return the RMS of each whole block of *hop* frames."""
    blocks = mono[: len(mono) // hop * hop].reshape(-1, hop)
    return np.asarray(np.sqrt(np.square(blocks).mean(axis=1)), np.float64)


def likeness(one: Samples, other: Samples) -> float:
    """Return the correlation of two sounds over the frames that both have."""
    frames = min(len(one), len(other))
    return float(np.corrcoef(one[:frames].ravel(), other[:frames].ravel())[0, 1])


def added(mixed: Clip, source: Clip) -> Samples:
    """Return what was added to an accompanied source."""
    return (mixed.samples - SOURCE_GAIN * source.samples).astype(np.float32)


def flatness(mono: npt.NDArray[np.float64]) -> float:
    """Return how much a sound is like noise: near 0 for tones, above 0.5 for white noise."""
    power = np.abs(np.fft.rfft(mono * np.hanning(len(mono)))) ** 2 + 1e-12
    return float(np.exp(np.mean(np.log(power))) / np.mean(power))


@pytest.fixture(scope="module")
def song() -> Clip:
    """Ten seconds of a tune that ends on a bar line."""
    return tune(seed=3, seconds=10, rate=RATE)


@pytest.fixture(scope="module")
def variants(song: Clip) -> tuple[Clip, Clip]:
    """Two variants of one extension at its end."""
    return extend(song, 10, seconds=20, variant=0, seed=11), extend(song, 10, seconds=20, variant=1, seed=11)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_format_is_read_at_its_place(kind: str, channels: int) -> None:
    """Each format is read with its rate, channels and length, and without a shift in time."""
    source = sine(0.7, 22_050, channels=channels)

    clip = load(written(source.samples, source.rate, kind))

    assert (22_050, source.samples.shape, "float32") == (clip.rate, clip.samples.shape, str(clip.samples.dtype))
    assert likeness(source.samples, clip.samples) > 0.99


@pytest.mark.parametrize(("kind", "magic"), [("mp3", b"\xff"), ("wav", b"RIFF")])
def test_what_is_encoded_is_that_format(kind: Literal["mp3", "wav"], magic: bytes, song: Clip) -> None:
    """An encoded clip is a file of the requested kind, and reads back with the same length and sound."""
    data = encode(song, kind)

    again = load(data)

    assert magic == data[: len(magic)]
    assert song.samples.shape == again.samples.shape
    assert likeness(song.samples, again.samples) > 0.98


def test_16_bits_survive_wav_exactly() -> None:
    """Each of the 65,536 values of a 16-bit file is written as it was read."""
    values = np.arange(-32_768, 32_768).astype(np.int16)[:, None]
    data = written(values, RATE, "WAV", "PCM_16")

    again, _ = soundfile.read(io.BytesIO(encode(load(data), "wav")), dtype="int16", always_2d=True)

    assert np.array_equal(values, again)


@pytest.mark.parametrize(("rate", "expected"), [(6_000, 8_000), (37_800, 44_100), (44_100, 44_100), (96_000, 48_000)])
def test_mp3_gets_a_rate_that_it_knows(rate: int, expected: int) -> None:
    """A clip whose rate MP3 lacks is resampled, and lasts as long as before."""
    again = load(encode(sine(0.5, rate), "mp3"))

    assert expected == again.rate
    assert again.duration == pytest.approx(0.5, abs=0.01)


def test_resampling_keeps_the_pitch() -> None:
    """Resampling keeps the pitch of a tone."""
    assert likeness(sine(0.5, 48_000).samples, resample(sine(0.5, 96_000).samples, 96_000, 48_000)) > 0.9999


def test_a_long_mp3_is_written_and_read_whole() -> None:
    """An MP3 of several minutes is written and read completely."""
    clip = sine(150, 8_000)

    assert clip.samples.shape == load(encode(clip, "mp3")).samples.shape


def test_an_mp3_is_read_without_a_gap_between_blocks(capfd: pytest.CaptureFixture[str]) -> None:
    """A file longer than a block decodes as in one read, and libmpg123 prints no error about lost bits."""
    file = encode(voice(seed=0, seconds=40), "mp3")
    samples, _ = soundfile.read(io.BytesIO(file), dtype="float32", always_2d=True)
    assert np.allclose(samples, load(file).samples, atol=1e-6)
    assert capfd.readouterr().err == ""


def test_many_channels_become_one_and_wild_floats_are_tamed() -> None:
    """Surround is mixed to mono, and infinities, NaN and peaks above 1 are clipped to -1..1."""
    wild = np.tile(np.array([np.nan, np.inf, -np.inf, 7.0, 0.5], np.float32)[:, None], (20, 1))

    assert (100, 1) == load(written(np.repeat(wild, 6, axis=1), RATE, "WAV", "FLOAT")).samples.shape
    assert [0.0, 1.0, -1.0, 1.0, 0.5] == load(written(wild, RATE, "WAV", "FLOAT")).samples[:5, 0].tolist()


def test_a_streamed_wav_without_a_size_is_read() -> None:
    """A WAV file with a size of all ones, as ffmpeg writes into a pipe, is read completely."""
    data = bytearray(written(sine(0.2).samples, RATE, "WAV"))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"

    assert sine(0.2).samples.shape == load(bytes(data)).samples.shape


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"<html>Not found</html>", "of no kind", id="page"),
        pytest.param(b"RIFF" + bytes(40), "damaged", id="no-wav"),
        pytest.param(written(sine(0.1).samples, RATE, "AIFF"), "of no kind", id="aiff"),
        pytest.param(written(sine(0.5).samples, RATE, "FLAC")[:-500], "damaged", id="half-flac"),
        pytest.param(written(sine(0.5).samples, RATE, "OGG")[:3_000], "damaged", id="half-ogg"),
        pytest.param(written(np.zeros((0, 1), np.float32), RATE, "WAV"), "0 frames", id="no-frames"),
        pytest.param(written(sine(0.1, 8_000).samples, 100, "WAV"), "at 100 Hz", id="slow"),
        pytest.param(written(sine(0.1).samples, 2_000_000, "WAV"), "at 2,000,000 Hz", id="fast"),
        pytest.param(written(np.zeros((9, 12), np.float32), RATE, "WAV"), "claims 12 channels", id="channels"),
    ],
)
def test_an_unusable_file_is_refused_with_the_reason(data: bytes, told: str) -> None:
    """A file that is not a whole audio file is refused with what is wrong and which formats can be read."""
    with pytest.raises(AudioError, match=told) as caught:
        load(data)

    assert FORMATS_READ in str(caught.value)


def test_a_file_that_unpacks_to_hours_is_refused() -> None:
    """A small file that decodes to hours of silence is refused at the limit, before it fills the memory."""
    with pytest.raises(AudioError, match="longer than"):
        load(written(np.zeros((200_000, 1), np.float32), RATE, "FLAC"), most_samples=100_000)


FILES = [written(sine(0.1).samples, RATE, kind) for kind in ("WAV", "FLAC", "OGG", "MP3")]


@given(data=st.binary(max_size=300), head=st.sampled_from([b"", b"RIFF", b"fLaC", b"OggS", b"ID3\x04", b"\xff\xfb"]))
def test_any_bytes_give_a_clip_or_our_error(data: bytes, head: bytes) -> None:
    """Any bytes give a clip or an `AudioError`."""
    assert_clip_or_error(head + data)


@given(
    file=st.sampled_from(FILES),
    place=st.floats(0, 1, exclude_max=True),
    patch=st.binary(max_size=12),
    end=st.floats(0, 1),
)
def test_any_damage_gives_a_clip_or_our_error(file: bytes, place: float, patch: bytes, end: float) -> None:
    """A file with overwritten bytes and a cut end gives a clip or an `AudioError`."""
    at = int(len(file) * place**4)

    assert_clip_or_error((file[:at] + patch + file[at + len(patch) :])[: int(len(file) * (1 - end**3)) + 1])


def assert_clip_or_error(data: bytes) -> None:
    """Load *data*, and check that it gives sound within its bounds or an `AudioError`."""
    try:
        clip = load(data)
    except AudioError:
        return
    assert len(clip.samples) > 0
    assert float(np.abs(clip.samples).max()) <= 1.0


# --- generated music -------------------------------------------------------------------------------------------------


def test_a_tune_is_music() -> None:
    """A tune has the requested length, sounds in every second, is tonal and in stereo."""
    piece = tune(seed=1, seconds=12, rate=RATE)
    mono = to_mono(piece.samples)

    assert (12 * RATE, 2) == piece.samples.shape
    assert float(levels(mono, RATE).min()) > 0.03
    assert 0.4 < float(np.abs(piece.samples).max()) < 1.0
    assert flatness(mono) < 0.01
    assert not np.array_equal(piece.samples[:, 0], piece.samples[:, 1])


def test_a_voice_is_tonal_and_pauses() -> None:
    """A voice is mono and tonal, and pauses between its phrases."""
    line = voice(seed=1, seconds=10, rate=RATE)
    loudness = levels(to_mono(line.samples), RATE // 10)

    assert (10 * RATE, 1) == line.samples.shape
    assert flatness(to_mono(line.samples)) < 0.01
    assert float(loudness.max()) > 0.1
    assert int((loudness < 0.1 * loudness.max()).sum()) >= 3


@pytest.mark.parametrize("make", [tune, voice])
def test_the_seed_decides_the_music(make: Callable[..., Clip]) -> None:
    """The same seed gives the same samples, another seed another piece, and no length is too short."""
    first, again, other = (make(seed=seed, seconds=3, rate=RATE) for seed in (-5, -5, 6))

    assert np.array_equal(first.samples, again.samples)
    assert likeness(first.samples, other.samples) < 0.9
    assert 160 == len(make(seed=5, seconds=0.01, rate=RATE).samples)


# --- extend ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("continue_at", [10.0, 6.4, 99.0, 0.0])
def test_the_source_is_kept_up_to_the_cut(song: Clip, continue_at: float) -> None:
    """Up to 30 ms before the cut the samples are the source's own, and then the requested seconds follow."""
    longer = extend(song, continue_at, seconds=12, variant=0, seed=1)
    kept = max(min(round(continue_at * RATE), len(song.samples)) - round(JOINT_SECONDS * RATE), 0)

    assert np.array_equal(song.samples[:kept], longer.samples[:kept])
    assert min(continue_at, song.duration) + 12 == pytest.approx(longer.duration, abs=0.001)
    assert song.samples.shape[1] == longer.samples.shape[1]


def test_the_source_is_kept_through_files(song: Clip) -> None:
    """The kept part is bit for bit the same through WAV, and sounds the same and unshifted through MP3."""
    source = load(encode(song, "wav"))
    longer = extend(source, 8, seconds=4, variant=0, seed=1)
    kept = round(7.9 * RATE)

    assert np.array_equal(source.samples[:kept], load(encode(longer, "wav")).samples[:kept])
    assert likeness(source.samples[:kept], load(encode(longer, "mp3")).samples[:kept]) > 0.98


def test_the_variants_differ(song: Clip, variants: tuple[Clip, Clip]) -> None:
    """Variants and seeds continue differently, and the same variant and seed give the same samples."""
    other = extend(song, 10, seconds=20, variant=0, seed=12)
    ends = [clip.samples[len(song.samples) :] for clip in (*variants, other)]

    assert all(likeness(one, two) < 0.9 for one, two in pairwise(ends))
    assert np.array_equal(variants[0].samples, extend(song, 10, seconds=20, variant=0, seed=11).samples)


def test_the_continuation_is_as_loud_as_the_source_then_fades(song: Clip, variants: tuple[Clip, Clip]) -> None:
    """The continuation is as loud as the source, fades in its last seconds, and ends at exactly zero."""
    usual = rms(song.samples)
    for clip in variants:
        seconds = levels(to_mono(clip.samples), RATE)
        assert 0.5 * usual < rms(clip.samples[len(song.samples) : -8 * RATE]) < 1.6 * usual
        assert seconds[-1] < 0.1 * usual < 0.4 * usual < seconds[-9]
        assert [0.0, 0.0] == clip.samples[-1].tolist()


SOURCES = [
    pytest.param(tune(seed=3, seconds=10, rate=RATE), id="tune"),
    pytest.param(voice(seed=3, seconds=6, rate=RATE), id="voice"),
    pytest.param(sine(3.0), id="sine"),
    pytest.param(sine(0.1), id="short"),
    pytest.param(sine(1 / RATE), id="one-frame"),
    pytest.param(sine(2.0, 8_000), id="8kHz"),
    pytest.param(sine(2.0, 48_000, channels=2, level=1.0), id="loud-48kHz"),
    pytest.param(sine(3.0, level=0.0), id="silence"),
    pytest.param(sine(3.0, level=0.0005), id="quiet"),
    pytest.param(Clip(np.full((RATE, 2), 0.9, np.float32), RATE), id="constant"),
    pytest.param(Clip(np.random.default_rng(1).uniform(-1, 1, (RATE, 1)).astype(np.float32), RATE), id="noise"),
]


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("share", [1.0, 0.8])
def test_the_joint_does_not_click(source: Clip, variant: int, share: float) -> None:
    """Any source is continued audibly, with no larger steps around the joint than elsewhere in both parts."""
    longer = extend(source, share * source.duration, variant=variant, seed=2, seconds=3)
    cut, reach = max(round(share * len(source.samples)), 1), round(JOINT_SECONDS * source.rate)
    steps = np.abs(np.diff(longer.samples, axis=0))
    around = float(steps[max(cut - 2 * reach, 0) : cut + reach].max())

    # A tune after silence or a single sample has larger steps of its own.
    largest = max(np.abs(np.diff(source.samples, axis=0)).max(initial=0.0), steps[cut + reach :].max())
    assert around <= 1.01 * largest
    assert rms(longer.samples[cut:]) > 0.01 * min(rms(source.samples) or 1.0, 1.0)
    assert source.samples.shape[1] == longer.samples.shape[1]
    assert_within_bounds(longer)


@pytest.mark.parametrize("variant", [0, 1])
@pytest.mark.parametrize("source", SOURCES)
def test_any_source_can_be_accompanied(source: Clip, variant: int) -> None:
    """Short, silent, loud, quiet, constant and noisy sources give sound within bounds."""
    assert_within_bounds(accompany(source, variant=variant, seed=2))


def assert_within_bounds(clip: Clip) -> None:
    """Check that *clip* has numbers between -1 and 1, as players expect."""
    assert str(clip.samples.dtype) == "float32"
    assert bool(np.isfinite(clip.samples).all())
    assert float(np.abs(clip.samples).max()) <= 1.0


def test_a_quiet_source_is_continued_quietly(song: Clip) -> None:
    """A source at -70 dB is continued at its own level."""
    quiet = Clip((song.samples * np.float32(10**-2.5)).astype(np.float32), RATE)

    after = rms(extend(quiet, 10, seconds=20, variant=0, seed=1).samples[len(song.samples) : -8 * RATE])

    assert 0.5 * rms(quiet.samples) < after < 1.6 * rms(quiet.samples)


def test_an_extension_can_be_extended(song: Clip, variants: tuple[Clip, Clip]) -> None:
    """A source that ends in a fade is continued from before the fade."""
    again = extend(variants[0], variants[0].duration, seconds=20, variant=1, seed=5)
    new = levels(to_mono(again.samples[len(variants[0].samples) :]), RATE)

    assert float(new[2:8].min()) > 0.4 * rms(song.samples)


# --- accompany -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1.0, 0.2])
def test_the_accompaniment_is_about_as_loud_as_the_source(level: float) -> None:
    """The accompaniment has the source's length, two channels, and about its loudness."""
    sung = voice(seed=4, seconds=8, rate=RATE)
    source = Clip((level * sung.samples).astype(np.float32), RATE)

    mixed = accompany(source, variant=0, seed=1)

    assert (len(source.samples), 2) == mixed.samples.shape
    assert 0.4 < rms(added(mixed, source)) / rms(source.samples) < 1.0


def test_the_accompaniments_differ_by_variant_and_seed() -> None:
    """Variants and seeds give different accompaniments, and the same variant and seed the same one."""
    source = voice(seed=2, seconds=4, rate=RATE)
    first, again, other, seeded = (
        added(accompany(source, variant=variant, seed=seed), source)
        for variant, seed in ((0, 1), (0, 1), (1, 1), (0, 3))
    )

    assert np.array_equal(first, again)
    assert not np.array_equal(first, seeded)
    assert likeness(first, other) < 0.9
