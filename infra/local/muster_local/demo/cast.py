"""The demo's cast: real agencies from the project's register, and invented people.

The agencies' names and headcounts are public facts. Everything that happens to them in the demo is made up, and so is
every person.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import permutations

START = datetime(2025, 8, 6, tzinfo=UTC)
END = datetime(2026, 8, 7, tzinfo=UTC)

# Agencies sign up during office hours, this many per day.
_SIGNING_HOUR = timedelta(hours=14)
_DAILY_AGENCIES = 8

# The agencies with a special role in the year.
TWICE = "NASA"  # sends its enrollment twice
LAPSING = "NSF"  # its authorization ends in January and is renewed a week later
LEAVING = "RRB"  # withdraws in November
UNPAID = "NTSB"  # never pays
CROWDED = "PC"  # asks for more seats than agreed
DECLINING = "SSA"  # declines the renewal
TRYING = "VA"  # gets a longer trial, and uses its first seats when there are new features
REFUSED = "GAO"  # not in the executive branch

STEPS = ("enrollment", "authorization", "acceptance")

_FIRST_NAMES = (
    "ada",
    "ben",
    "cleo",
    "dara",
    "eli",
    "fay",
    "gus",
    "hana",
    "ian",
    "june",
    "kofi",
    "lena",
    "milo",
    "nora",
)
_LAST_NAMES = ("ash", "birch", "cedar", "dune", "elm", "fern", "grove", "hazel", "iris", "juniper", "kelp", "larch")


@dataclass(frozen=True)
class Person:
    """An invented person."""

    name: str
    email: str


@dataclass(frozen=True)
class Agency:
    """A participating agency, and when and in which order it enrolls."""

    id: str
    name: str
    domain: str
    seats: int
    enrolls_at: datetime
    steps: tuple[str, ...]

    @property
    def contact(self) -> Person:
        """The agency's contact."""
        return Person("Robin Example", f"robin.example@{self.domain}")

    def person(self, number: int) -> Person:
        """The agency's nth invented person, from 0."""
        first = _FIRST_NAMES[number % len(_FIRST_NAMES)]
        last = _LAST_NAMES[number // len(_FIRST_NAMES) % len(_LAST_NAMES)]
        return Person(f"{first.title()} {last.title()}", f"{first}.{last}.{number + 1}@{self.domain}")


def register() -> bytes:
    """The register of agencies, as the file to import."""
    return files("muster_local").joinpath("data", "agencies.tsv").read_bytes()


def cast(seats: int) -> list[Agency]:
    """The top-level executive agencies in order of enrollment, with `seats` split by headcount.

    Raises ValueError if there are fewer seats than agencies.
    """
    rows = [row for row in _rows() if row["branch"] == "executive" and not row["parent"]]
    # The agency that declines must enroll early, so that its term ends within the demo's year.
    rows.sort(key=lambda row: row["id"] != DECLINING)
    shares = apportion(seats, [int(row["headcount"]) for row in rows])
    orders = list(permutations(STEPS))
    return [
        Agency(
            id=row["id"],
            name=row["name"],
            domain=row["domains"].split(",")[0],
            seats=share,
            enrolls_at=day + _SIGNING_HOUR,
            steps=orders[place % len(orders)],
        )
        for place, (row, share, day) in enumerate(zip(rows, shares, _signing_days(), strict=False))
    ]


def apportion(seats: int, weights: Sequence[int]) -> list[int]:
    """Split `seats` in proportion to the weights: at least one each, largest remainders first.

    Raises ValueError if there are fewer seats than weights.
    """
    spare = seats - len(weights)
    if spare < 0:
        raise ValueError(f"{seats} seats are too few for {len(weights)} agencies: each needs at least one")
    total = sum(weights)
    shares = [1 + spare * weight // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: -(spare * weights[i] % total))
    for i in by_remainder[: seats - sum(shares)]:
        shares[i] += 1
    return shares


def _rows() -> Iterator[dict[str, str]]:
    yield from csv.DictReader(register().decode().splitlines(), delimiter="\t")


def _signing_days() -> Iterator[datetime]:
    """The enrollment day of each agency in order: weekdays only, from the start."""
    day = START
    while True:
        if day.weekday() < 5:
            yield from [day] * _DAILY_AGENCIES
        day += timedelta(days=1)
