"""Lists in pages: which rows a query reads, and the page that they make."""

import base64
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel, Field

from muster_runtime.errors import PermanentError

T = TypeVar("T")


class InvalidCursor(PermanentError):
    """The cursor is not the `next` of a page."""

    status = 422
    slug = "invalid-cursor"
    title = "The cursor is invalid"


class Page(BaseModel, Generic[T]):
    """Some items of a list."""

    items: list[T]
    next: str | None = Field(description="Give it as `after` for the next page; null on the last.")


@dataclass(frozen=True, slots=True)
class Pagination:
    """What page is asked for: at most `limit` items after the key `after`. A query reads `rows` rows."""

    limit: int
    after: str | None

    @property
    def rows(self) -> int:
        """How many rows to read: one more than fits, which shows that there is a next page."""
        return self.limit + 1

    @property
    def after_id(self) -> int | None:
        """The key as a number, for lists in the order of a bigint id; None before the first page."""
        if self.after is None:
            return None
        if not re.fullmatch(r"[0-9]{1,18}", self.after):
            raise InvalidCursor("after: the cursor belongs to another list")
        return int(self.after)

    def make(self, rows: Sequence[T], *, key: Callable[[T], str]) -> Page[T]:
        """The page of at most `rows` rows."""
        items = list(rows[: self.limit])
        more = len(rows) > self.limit
        return Page(items=items, next=encode_cursor(key(items[-1])) if more else None)


def encode_cursor(key: str) -> str:
    """The cursor of the page after this key."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
