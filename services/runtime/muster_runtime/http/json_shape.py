"""The shape of a JSON body, bounded before it is read: what no route takes must not cost what reading it costs."""

import re

MAX_KEYS = 1_000
MAX_DEPTH = 32

# Possessive: else the matcher keeps a way back for each character.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def broken_rule(body: bytes, max_keys: int) -> str | None:
    """The rule that a body breaks: at most so many keys, so many lists and objects, and MAX_DEPTH levels of them.

    It has at most twice as many values: each that does not fit makes an error of its own.
    """
    if b"\0" in body:
        return "a body is JSON in UTF-8"
    opened = body.count(b"[") + body.count(b"{")
    if body.count(b":") <= max_keys and body.count(b",") <= max_keys and opened <= MAX_DEPTH:
        return None
    body = _STRING.sub(b"", body)
    if body.count(b":") > max_keys:
        return f"a body has at most {max_keys} keys"
    if body.count(b",") > 2 * max_keys:
        return f"a body has at most {2 * max_keys} values"
    brackets = body.translate(None, _ALL_BUT_BRACKETS)
    if len(brackets) > 2 * max_keys + 2:
        return f"a body has at most {max_keys} lists and objects"
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            return f"a body has at most {MAX_DEPTH} levels of lists and objects"
    return None
