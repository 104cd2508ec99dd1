"""Stretches of an exposition that are rendered and compressed once, for as long as what they tell of stays the same."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

COMPRESSION = 4
"""zlib's level. It takes half as long again as the first and saves a ninth of the bytes; the next ones save no more."""
_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""RFC 1952, 2.3: gzip, deflated, without a name, a time or an operating system."""
_RAW = -zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class CompressedBlock:
    """Bytes, and the same deflated: on its own, up to a whole byte, so that it may follow on any other."""

    plain: bytes
    deflated: bytes

    @classmethod
    def of(cls, plain: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> "CompressedBlock":
        """Deflate some bytes; with Z_FINISH nothing may follow on them."""
        compressor = zlib.compressobj(COMPRESSION, zlib.DEFLATED, _RAW)
        return cls(plain, compressor.compress(plain) + compressor.flush(flush))


@dataclass(frozen=True)
class GzipBody:
    """Pieces in a row, plain and as the beginning of a gzip member, put together once for all who ask."""

    pieces: Sequence[CompressedBlock]
    gzipped: bytes
    size: int
    checksum: int

    @classmethod
    def of(cls, pieces: Sequence[CompressedBlock]) -> "GzipBody":
        """Put pieces together."""
        checksum = reduce(lambda before, piece: zlib.crc32(piece.plain, before), pieces, 0)
        gzipped = b"".join([_HEAD, *(piece.deflated for piece in pieces)])
        return cls(pieces, gzipped, sum(len(piece.plain) for piece in pieces), checksum)

    @cached_property
    def plain(self) -> bytes:
        """Without compression: ten times as large, and Prometheus never asks for it. So only who does, pays for it."""
        return b"".join(piece.plain for piece in self.pieces)

    def followed_by(self, last: CompressedBlock, *, gzipped: bool) -> tuple[bytes, bytes]:
        """Both, plain or as one gzip member; the last piece was made with Z_FINISH."""
        if not gzipped:
            return self.plain, last.plain
        checksum = zlib.crc32(last.plain, self.checksum)
        trailer = struct.pack("<LL", checksum, (self.size + len(last.plain)) & 0xFFFFFFFF)
        return self.gzipped, last.deflated + trailer
