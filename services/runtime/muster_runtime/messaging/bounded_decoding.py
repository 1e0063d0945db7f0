"""Decompresses Kafka's batches up to a limit: a batch of a few kilobytes can contain gigabytes.

Kafka's `max.message.bytes` counts compressed bytes. aiokafka decompresses a batch as a whole and has no option to limit
it.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import cramjam
from aiokafka import codec
from aiokafka.record._crecords import default_records

_Decode = Callable[[Any], bytes]

# The buffer that batches are decompressed into, one at a time: allocating one per batch would take longer than
# decompressing most batches.
_content = bytearray()

# How many more bytes the block may decompress; None outside a block.
_room: ContextVar[list[int] | None] = ContextVar("room", default=None)


class TooLarge(Exception):
    """A batch decompresses to more than the limit, or cannot be decompressed."""

    def __init__(self, payload: Any, room: int) -> None:
        super().__init__(f"a batch of {len(payload)} bytes does not decompress to {room} bytes")


@contextmanager
def decompressing_at_most(size: int) -> Iterator[None]:
    """Limit what this task's polls in the block decompress, in bytes.

    A batch that exceeds the limit raises TooLarge.
    """
    token = _room.set([size])
    try:
        yield
    finally:
        _room.reset(token)


def _bounded(decode: _Decode, decode_within: Callable[[Any, int], bytes]) -> _Decode:
    def decoded(payload: Any) -> bytes:
        if (room := _room.get()) is None:
            return decode(payload)
        content = decode_within(payload, room[0])
        room[0] -= len(content)
        return content

    return decoded


def _into(decompress_into: Callable[[Any, memoryview], int]) -> Callable[[Any, int], bytes]:
    def decode_within(payload: Any, room: int) -> bytes:
        if room > len(_content):
            _content.extend(bytes(room - len(_content)))
        with memoryview(_content)[:room] as content:
            try:
                size = decompress_into(payload, content)
            except cramjam.DecompressionError as error:
                raise TooLarge(payload, room) from error
            return bytes(content[:size])

    return decode_within


def _snappy_within(payload: Any, room: int) -> bytes:
    """Check the size that each snappy block declares; decompression fails if a block does not have that size."""
    blocks, content = [payload], memoryview(payload)
    if codec._detect_xerial_stream(payload):
        blocks, at = [], 16
        while at < len(content):
            (size,) = struct.unpack_from("!i", content, at)
            blocks.append(content[at + 4 : at + 4 + size])
            at += 4 + max(size, 0)
    if sum(map(cramjam.snappy.decompress_raw_len, blocks)) > room:
        raise TooLarge(content, room)
    return codec.snappy_decode(payload)


# aiokafka has no option to replace these functions, but it looks each of them up in this module at every batch.
_module: Any = default_records
_module.gzip_decode = _bounded(codec.gzip_decode, _into(cramjam.gzip.decompress_into))
_module.lz4_decode = _bounded(codec.lz4_decode, _into(cramjam.lz4.decompress_into))
_module.zstd_decode = _bounded(codec.zstd_decode, _into(cramjam.zstd.decompress_into))
_module.snappy_decode = _bounded(codec.snappy_decode, _snappy_within)
