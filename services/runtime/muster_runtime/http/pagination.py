"""Lists in pages: a cursor is the last key of the page before, and opaque to the caller."""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from muster_runtime.errors import PermanentError

T = TypeVar("T")


class InvalidCursor(PermanentError):
    """The cursor is not one that a page gave out."""

    status = 422
    slug = "invalid-cursor"
    title = "The cursor is invalid"


class Page(BaseModel, Generic[T]):
    """Some items of a list."""

    items: list[T]
    next: str | None = Field(description="Give it as `after` for the next page; null on the last.")


@dataclass(frozen=True, slots=True)
class Pagination:
    """What page is asked for: at most `limit` items after the key `after`. Read limit + 1 rows."""

    limit: int
    after: str | None

    @property
    def after_id(self) -> int | None:
        """The key as a number, for lists in the order of a bigint id; None before the first page."""
        if self.after is None:
            return None
        if not re.fullmatch(r"[0-9]{1,18}", self.after):
            raise InvalidCursor("after: the cursor belongs to another list")
        return int(self.after)

    def make(self, rows: Sequence[T], *, key: Callable[[T], str]) -> Page[T]:
        """The page of at most limit + 1 rows; the one too many only shows that there is a next page."""
        items = list(rows[: self.limit])
        more = len(rows) > self.limit
        return Page(items=items, next=_encode(key(items[-1])) if more else None)


def _encode(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _decode(cursor: str) -> str:
    try:
        key = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError):
        key = ""
    if not key.isprintable() or _encode(key) != cursor or not key:
        raise InvalidCursor(f"after: {cursor[:40]!r} is not the `next` of a page of this list")
    return key


def _pagination(
    limit: Annotated[int, Query(ge=1, le=200, description="Items on a page, at most.")] = 50,
    after: Annotated[str | None, Query(max_length=1000, description="`next` of the page before.")] = None,
) -> Pagination:
    return Pagination(limit, None if after is None else _decode(after))


PageDep = Annotated[Pagination, Depends(_pagination)]
