"""Limits the shape of a JSON body before it is parsed, so that an unacceptable body does not cost a parse."""

import re

MAX_KEYS = 1_000
MAX_DEPTH = 32

# Possessive: otherwise the matcher keeps a backtracking position for each character.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def broken_rule(body: bytes, max_keys: int) -> str | None:
    """The rule that a body breaks: at most `max_keys` keys, as many lists and objects, and MAX_DEPTH nested levels.

    It may have at most twice as many values, because each invalid value becomes an error of its own.
    """
    if b"\0" in body:
        return "the body must be JSON in UTF-8"
    opened = body.count(b"[") + body.count(b"{")
    if body.count(b":") <= max_keys and body.count(b",") <= max_keys and opened <= MAX_DEPTH:
        return None
    body = _STRING.sub(b"", body)
    if body.count(b":") > max_keys:
        return f"the body must have at most {max_keys} keys"
    if body.count(b",") > 2 * max_keys:
        return f"the body must have at most {2 * max_keys} values"
    brackets = body.translate(None, _ALL_BUT_BRACKETS)
    if len(brackets) > 2 * max_keys + 2:
        return f"the body must have at most {max_keys} lists and objects"
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return f"the body must have at most {MAX_DEPTH} levels of lists and objects"
    return None
