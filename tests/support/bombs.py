"""Bodies that are small on the wire and huge when they are unpacked."""

from __future__ import annotations

import struct
import zlib

PART = b" " * 1_000_000


def bomb(megabytes: int) -> bytes:
    """Return a gzip file of so many megabytes of spaces: one packed part, repeated, as packing all takes a second."""
    packer = zlib.compressobj(level=9, wbits=-zlib.MAX_WBITS)
    part = packer.compress(PART) + packer.flush(zlib.Z_FULL_FLUSH)
    check = 0
    for _ in range(megabytes):
        check = zlib.crc32(PART, check)
    head = b"\x1f\x8b\x08" + bytes(5) + b"\x02\xff"
    return head + part * megabytes + packer.flush() + struct.pack("<II", check, megabytes * len(PART))
