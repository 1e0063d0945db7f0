"""Seat files of numbered people, and the totals of an operation."""


def people(*numbers: int) -> str:
    return "\n".join(["email,name", *(f"person.{number}@nasa.gov,Person {number}" for number in numbers)])


def file_of(count: int) -> str:
    return people(*range(count))


def sums(operation: dict[str, object]) -> tuple[object, ...]:
    return tuple(operation[key] for key in ("rows", "assigned", "already_held", "refused"))
