"""The query parameters of a list. A cursor is the last key of the previous page, opaque to the caller."""

import base64
import binascii
from typing import Annotated

from fastapi import Depends, Query

from muster_runtime.pagination import InvalidCursor, Pagination, encode_cursor


def _decode(cursor: str) -> str:
    try:
        key = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        key = ""
    if not key.isprintable() or encode_cursor(key) != cursor or not key:
        raise InvalidCursor(f"after: {cursor[:40]!r} is not the `next` of a page of this list")
    return key


def _pagination(
    limit: Annotated[int, Query(ge=1, le=200, description="Maximum number of items on the page.")] = 50,
    after: Annotated[str | None, Query(max_length=1000, description="The `next` of the previous page.")] = None,
) -> Pagination:
    return Pagination(limit, None if after is None else _decode(after))


PageDep = Annotated[Pagination, Depends(_pagination)]
