"""Formats arrays as literals, for statements with thousands of rows: the driver's encoding of a list is slower."""

from collections.abc import Iterable
from datetime import datetime


def instants(values: Iterable[datetime]) -> str:
    """The literal of instants of which many are equal: formatting one takes ten times as long as looking it up."""
    texts: dict[datetime, str] = {}
    return array(texts.get(value) or texts.setdefault(value, str(value)) for value in values)


def array(values: Iterable[object]) -> str:
    """The literal of texts, numbers, dates, or instants, for a parameter with a cast such as $1::text::bigint[]."""
    texts = list(map(str, values))
    joined = '","'.join(texts)
    if "\\" in joined or joined.count('"') != 2 * max(0, len(texts) - 1):
        joined = '","'.join(text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return f'{{"{joined}"}}' if texts else "{}"
