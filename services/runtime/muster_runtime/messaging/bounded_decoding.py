"""Decompressing Kafka's batches within a bound: a batch of some kilobytes can hold gigabytes.

Kafka's `max.message.bytes` counts compressed bytes, and aiokafka decompresses a batch whole, without an option.
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

# Where batches are decompressed, one at a time: a new one for each would take longer than most batches.
_content = bytearray()

# What may still be decompressed in the block; None outside of one.
_room: ContextVar[list[int] | None] = ContextVar("room", default=None)


class TooLarge(Exception):
    """A batch holds more than there is room for, or cannot be decompressed."""

    def __init__(self, payload: Any, room: int) -> None:
        super().__init__(f"a batch of {len(payload)} bytes does not decompress to {room} bytes")


@contextmanager
def decompressing_at_most(size: int) -> Iterator[None]:
    """Let this task's polls in the block decompress so many bytes; they raise TooLarge at a batch that exceeds it."""
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
    """Each block of snappy begins with its size, and is not decompressed if that is wrong."""
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


# There is no option for any of these. Each is looked up in that module at every batch.
_module: Any = default_records
_module.gzip_decode = _bounded(codec.gzip_decode, _into(cramjam.gzip.decompress_into))
_module.lz4_decode = _bounded(codec.lz4_decode, _into(cramjam.lz4.decompress_into))
_module.zstd_decode = _bounded(codec.zstd_decode, _into(cramjam.zstd.decompress_into))
_module.snappy_decode = _bounded(codec.snappy_decode, _snappy_within)
