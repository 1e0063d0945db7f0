"""The errors of enrollment."""

from collections.abc import Sequence
from dataclasses import dataclass

from muster_runtime.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Fault:
    """A value that breaks a rule; `line` counts from 1, the header."""

    line: int
    field: str
    value: str
    rule: str


MOST_FAULTS = 50


class RegisterRefused(PermanentError):
    """The register file was rejected; `errors` lists the first 50 faults."""

    status = 422
    slug = "register-refused"
    title = "The register file is invalid"

    def __init__(self, faults: Sequence[Fault]) -> None:
        ordered = sorted(faults, key=lambda fault: fault.line)
        count = len(faults) if len(faults) < MOST_FAULTS else f"{MOST_FAULTS} or more"
        super().__init__(
            f"the first value that breaks a rule is on line {ordered[0].line} (of {count}); nothing was imported",
            errors=[
                {"line": fault.line, "field": fault.field, "value": fault.value[:200], "rule": fault.rule}
                for fault in ordered[:MOST_FAULTS]
            ],
        )
