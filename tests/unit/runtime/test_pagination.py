"""Cursors: opaque, exact, and refused if they are not ours."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster_runtime.http.pagination import _pagination
from muster_runtime.pagination import InvalidCursor, Pagination

KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@given(keys=st.lists(KEYS, unique=True, max_size=30), limit=st.integers(1, 7))
def test_pages_hold_every_item_once_in_order(keys: list[str], limit: int) -> None:
    keys.sort()
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = _pagination(limit, cursor)
        rows = [key for key in keys if page.after is None or key > page.after][: page.rows]
        reply = page.make(rows, key=lambda key: key)
        assert len(reply.items) <= limit
        seen += reply.items
        cursor = reply.next
        if cursor is None:
            break
    assert seen == keys


def test_a_full_last_page_has_no_next() -> None:
    assert Pagination(2, None).make(["a", "b"], key=str).next is None


@pytest.mark.parametrize(
    "cursor", ["", "=", "YQ==", "!", "é", "YR", base64.urlsafe_b64encode(b"a\0b").decode(), "gICA", "a" * 5]
)
def test_a_cursor_that_no_page_issued_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        _pagination(50, cursor)


def test_a_cursor_of_another_list_is_not_an_id() -> None:
    cursor = base64.urlsafe_b64encode(b"NASA").decode().rstrip("=")
    with pytest.raises(InvalidCursor):
        _ = _pagination(50, cursor).after_id
