"""Compressed blocks, which are cached while their content stays the same and can be joined to one gzip member."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

COMPRESSION_LEVEL = 4
"""Level of zlib. It takes 1.5 times as long as level 1 and saves a ninth of the bytes. Higher levels save little."""
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""Header of a gzip member (RFC 1952, 2.3): deflate, without a file name, a time or an operating system."""
_RAW_DEFLATE = -zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class CompressedBlock:
    """Bytes, and the same bytes deflated independently and aligned to a byte, so that blocks can be concatenated."""

    plain: bytes
    deflated: bytes

    @classmethod
    def of(cls, plain: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> "CompressedBlock":
        """Deflate bytes. With Z_FINISH, no other block may follow."""
        compressor = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, _RAW_DEFLATE)
        return cls(plain, compressor.compress(plain) + compressor.flush(flush))


@dataclass(frozen=True)
class GzipBody:
    """Blocks concatenated once for all responses: plain, and as the beginning of a gzip member."""

    blocks: Sequence[CompressedBlock]
    gzip_prefix: bytes
    """The gzip header and all blocks. A last block and the trailer complete it."""
    size: int
    checksum: int

    @classmethod
    def of(cls, blocks: Sequence[CompressedBlock]) -> "GzipBody":
        """Concatenate blocks."""
        checksum = reduce(lambda before, block: zlib.crc32(block.plain, before), blocks, 0)
        gzip_prefix = b"".join([_GZIP_HEADER, *(block.deflated for block in blocks)])
        return cls(blocks, gzip_prefix, sum(len(block.plain) for block in blocks), checksum)

    @cached_property
    def plain(self) -> bytes:
        """The uncompressed bytes. They are ten times as large, so they are concatenated only if a client requests them.

        Prometheus always accepts gzip.
        """
        return b"".join(block.plain for block in self.blocks)

    def with_last_block(self, last: CompressedBlock, *, gzipped: bool) -> tuple[bytes, bytes]:
        """Return the bytes of this body and of a last block, plain or as one gzip member.

        The last block must have been compressed with Z_FINISH.
        """
        if not gzipped:
            return self.plain, last.plain
        checksum = zlib.crc32(last.plain, self.checksum)
        trailer = struct.pack("<LL", checksum, (self.size + len(last.plain)) & 0xFFFFFFFF)
        return self.gzip_prefix, last.deflated + trailer
