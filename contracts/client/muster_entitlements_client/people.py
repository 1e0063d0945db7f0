"""People by reference, as rows of bytes: an object for each person would take five times as much memory."""

from struct import Struct

# A row: the 128 bits of a reference, a number, and an instant.
_ROW = Struct("=16sqq")

# Rows are stored in groups, unordered within a group, and a row is found by its first bytes. With millions of people, a
# group has dozens of rows, and a search takes about a microsecond.
_TOGETHER = (1 << 16) - 1

Row = tuple[int, int]


class People:
    """A number and an instant, 64 bits each, for every person."""

    __slots__ = ("_rows", "_size")

    def __init__(self) -> None:
        self._rows: dict[int | str, bytearray] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def find(self, subject_ref: str) -> Row | None:
        """A person's number and instant."""
        place, key = _place(subject_ref)
        rows = self._rows.get(place)
        return None if rows is None else _at(rows, _index(rows, key))

    def put(self, subject_ref: str, number: int, instant: int) -> Row | None:
        """Set a person's number and instant; return the previous ones."""
        place, key = _place(subject_ref)
        rows = self._rows.setdefault(place, bytearray())
        index = _index(rows, key)
        before = _at(rows, index)
        if before is None:
            rows += _ROW.pack(key, number, instant)
            self._size += 1
        else:
            _ROW.pack_into(rows, index, key, number, instant)
        return before

    def remove(self, subject_ref: str) -> Row | None:
        """Forget a person; return their number and instant."""
        place, key = _place(subject_ref)
        rows = self._rows.get(place, bytearray())
        index = _index(rows, key)
        before = _at(rows, index)
        if before is not None:
            rows[index : index + _ROW.size] = rows[-_ROW.size :]  # the last row takes its place
            del rows[-_ROW.size :]
            self._size -= 1
            if not rows:
                del self._rows[place]
        return before


def _place(subject_ref: str) -> tuple[int | str, bytes]:
    """The group of a person's row, and the row's first bytes. A reference of another form has a group of its own."""
    try:
        key = bytes.fromhex(subject_ref[4:])
    except ValueError:
        key = b""
    if len(key) == 16 and f"sub_{key.hex()}" == subject_ref:
        return hash(key) & _TOGETHER, key
    return subject_ref, bytes(16)


def _index(rows: bytearray, key: bytes) -> int:
    """Where the row with these first bytes begins; -1 if there is none."""
    index = rows.find(key)
    while index > 0 and index % _ROW.size:  # the same bytes may also occur across row boundaries
        index = rows.find(key, index + 1)
    return index


def _at(rows: bytearray, index: int) -> Row | None:
    if index < 0:
        return None
    _, number, instant = _ROW.unpack_from(rows, index)
    return number, instant
