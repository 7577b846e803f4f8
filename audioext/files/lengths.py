"""The length of audio that tinytag cannot measure: AAC streams, WebM, and a FLAC file that was cut short."""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

_ADTS_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_ADTS_HEAD_BYTES = 7
_ADTS_BLOCK = 1_024
"""Samples in a raw data block."""
_ID3_HEAD_BYTES = 10
_LONGEST_SECONDS = 86_400.0
"""More is not measured: a hostile gigabyte of the shortest frames would take minutes."""

WEBM_HEAD_BYTES = 65_536
_CLUSTER, _SEGMENT = b"\x1f\x43\xb6\x75", b"\x18\x53\x80\x67"
_DURATION = re.compile(rb"\x44\x89(?:\x84(.{4})|\x88(.{8}))", re.DOTALL)
_TICK = re.compile(rb"\x2a\xd7\xb1\x83(.{3})", re.DOTALL)
_USUAL_TICK = 1_000_000
"""Nanoseconds of WebM's unit of time, if the file states none."""

_TAIL_BYTES = 262_144
"""More than the longest FLAC frame that is in use."""
_FLAC_SYNC = re.compile(rb"\xff[\xf8\xf9]")


def id3_bytes(head: bytes) -> int:
    """Return the size of the ID3v2 tag at the start of *head*, else 0: id3.org/id3v2.4.0-structure, 3.1."""
    if not head.startswith(b"ID3"):
        return 0
    size = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
    return 10 + size + (10 if head[5:6] and head[5] & 0x10 else 0)


def adts_seconds(file: BinaryIO, start: int) -> float:
    """Return the duration of the AAC stream from *start* on, up to its last whole frame (ISO/IEC 13818-7, 6.2).

    Joined segments of HTTP Live Streaming each begin with an ID3 tag: RFC 8216, 3.4.
    """
    seconds, size = 0.0, file.seek(0, 2)
    while start + _ADTS_HEAD_BYTES <= size and seconds < _LONGEST_SECONDS:
        file.seek(start)
        head = file.read(_ID3_HEAD_BYTES)
        if tag := id3_bytes(head):
            start += tag
            continue
        rate = (head[2] >> 2) & 0x0F
        length = (head[3] & 0x03) << 11 | head[4] << 3 | head[5] >> 5
        start += length
        is_frame = head[0] == 0xFF and head[1] & 0xF6 == 0xF0 and rate < len(_ADTS_RATES)  # noqa: PLR2004 - the sync word
        if not is_frame or length < _ADTS_HEAD_BYTES or start > size:
            break
        seconds += _ADTS_BLOCK * ((head[6] & 0x03) + 1) / _ADTS_RATES[rate]
    return seconds


def webm_length(head: bytes) -> tuple[float, int] | None:
    """Return the duration and the size of a WebM file, each 0 if *head* does not state it; `None` if it has no sound.

    The elements are those of www.matroska.org/technical/elements.html. A file made while recording states neither.
    """
    if b"webm" not in head[:64] or _CLUSTER not in head:
        return None
    at = head.index(_SEGMENT) + len(_SEGMENT) if _SEGMENT in head else len(head)
    whole = 0
    if first := head[at : at + 1]:
        width = 9 - first[0].bit_length()
        size = int.from_bytes(head[at : at + width], "big") & ((1 << 7 * width) - 1)
        whole = 0 if size == (1 << 7 * width) - 1 else at + width + size
    before = head[: head.index(_CLUSTER)]
    found, tick = _DURATION.search(before), _TICK.search(before)
    if found is None:
        return 0.0, whole
    (ticks,) = struct.unpack(">f", found[1]) if found[1] is not None else struct.unpack(">d", found[2])
    seconds = ticks * (int.from_bytes(tick[1], "big") if tick else _USUAL_TICK) / 1e9
    return (seconds if 0 < seconds < float("inf") else 0.0), whole


def flac_seconds(file: BinaryIO, start: int) -> float | None:
    """Return how many seconds of the FLAC file from *start* on are there, by its last frame; `None` if that is unknown.

    Its head states the whole length, however little has arrived: RFC 9639, 8.2 and 9.1. Of all that looks like the head
    of a frame the farthest counts, and as a whole block: sound may look so by chance, and no good file may be refused.
    """
    size = file.seek(0, 2)
    file.seek(start)
    info = file.read(42)[8:]
    block, rate = int.from_bytes(info[2:4], "big"), int.from_bytes(info[10:18], "big") >> 44
    file.seek(max(start, size - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    ends: list[int] = []
    for sync in (found.start() for found in _FLAC_SYNC.finditer(tail)):
        number = _frame_number(tail[sync : sync + 16])
        if number is not None and rate:
            ends.append((number if tail[sync + 1] & 1 else number * block) + block)
    if ends:
        return max(ends) / rate
    return None if size - start > _TAIL_BYTES else 0.0


def _frame_number(head: bytes) -> int | None:
    """Return the number in the head of a FLAC frame (its own, or its first sample's), if its checksum is right."""
    head = head.ljust(16, b"\0")
    width = max(1, 8 - (head[4] ^ 0xFF).bit_length())
    number = head[4] & (0x7F >> (width if width > 1 else 0))
    for byte in head[5 : 4 + width]:
        number = number << 6 | byte & 0x3F
    end = 4 + width + {6: 1, 7: 2}.get(head[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(head[2] & 0x0F, 0)
    check = 0
    for byte in head[:end]:
        check ^= byte
        for _ in range(8):
            check = (check << 1 ^ 0x07) & 0xFF if check & 0x80 else check << 1
    return number if end < len(head) and check == head[end] else None
