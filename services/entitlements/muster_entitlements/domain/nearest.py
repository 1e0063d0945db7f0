"""Keys that resemble an unknown one, for a refusal to name."""

from collections.abc import Iterable
from difflib import get_close_matches
from functools import lru_cache
from heapq import nlargest
from itertools import pairwise

# The most keys that an unknown one is compared with, those that share the most letter pairs: each takes 0.1 ms.
MOST_COMPARED = 10


def nearest_keys(key: str, keys: Iterable[str]) -> list[str]:
    """Up to three keys that resemble a key, the nearest first."""
    asked = frozenset(pairwise(key))
    likely = nlargest(MOST_COMPARED, keys, key=lambda each: len(asked & _letter_pairs(each)))
    return get_close_matches(key, likely, n=3, cutoff=0.5)


@lru_cache(maxsize=1_000)
def _letter_pairs(key: str) -> frozenset[tuple[str, str]]:
    return frozenset(pairwise(key))
