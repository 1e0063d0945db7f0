"""Keys that resemble an unknown one: a refusal names them."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from heapq import nlargest
from itertools import pairwise

# With how many keys an unknown one is compared, those that share the most pairs of letters: a comparison takes 0.1 ms.
MOST_COMPARED = 10


def nearest_keys(key: str, keys: Iterable[str]) -> list[str]:
    """The keys that resemble a key, the nearest first, at most three."""
    asked = frozenset(pairwise(key))
    likely = nlargest(MOST_COMPARED, keys, key=lambda each: len(asked & _letter_pairs(each)))
    return get_close_matches(key, likely, n=3, cutoff=0.5)


@lru_cache(maxsize=1_000)
def _letter_pairs(key: str) -> frozenset[tuple[str, str]]:
    return frozenset(pairwise(key))
