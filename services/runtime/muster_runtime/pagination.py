"""Paged lists: which rows a query reads, and the page made of them."""

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
    next: str | None = Field(description="Pass it as `after` to get the next page; null on the last page.")


@dataclass(frozen=True, slots=True)
class Pagination:
    """A request for a page: at most `limit` items after the key `after`. The query reads `rows` rows."""

    limit: int
    after: str | None

    @property
    def rows(self) -> int:
        """How many rows to read: one more than fits, to show whether there is a next page."""
        return self.limit + 1

    @property
    def after_id(self) -> int | None:
        """The key as a number, for lists ordered by a bigint ID; None for the first page."""
        if self.after is None:
            return None
        if not re.fullmatch(r"[0-9]{1,18}", self.after):
            raise InvalidCursor("after: the cursor belongs to another list")
        return int(self.after)

    def make(self, rows: Sequence[T], *, key: Callable[[T], str]) -> Page[T]:
        """Make a page of at most `rows` rows."""
        items = list(rows[: self.limit])
        more = len(rows) > self.limit
        return Page(items=items, next=encode_cursor(key(items[-1])) if more else None)


def encode_cursor(key: str) -> str:
    """The cursor of the page after this key."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
