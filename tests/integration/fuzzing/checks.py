"""What Schemathesis checks in each answer besides its own checks: it loads this file (SCHEMATHESIS_HOOKS)."""

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import schemathesis

# Any route may answer these before its handler runs; `default` documents them: they concern the request's form.
OF_ANY_REQUEST = {405, 408, 413, 414, 431}


SHARE = float(os.environ["FUZZ_SHARE"])
CHANCE = random.Random(int(os.environ["FUZZ_SEED"]))


@schemathesis.hook
def filter_case(_context: Any, case: Any) -> bool:
    """Take a share of the boundaries: a service has about a thousand, and Schemathesis has no limit for them."""
    return case.meta.phase.name != "coverage" or CHANCE.random() < SHARE


@schemathesis.check
def documented_by_its_status(_ctx: Any, response: Any, case: Any) -> None:
    """Each status is documented by itself, and not only by `default`, which would document every one."""
    documented = case.operation.definition.raw["responses"]
    if str(response.status_code) not in documented and response.status_code not in OF_ANY_REQUEST:
        raise AssertionError(f"{response.status_code} is not among {sorted(documented)}")


@schemathesis.check
def has_the_fields_of_every_answer(_ctx: Any, response: Any, _case: Any) -> None:
    """An answer has ids, says what a browser may do with it, and has no banner."""
    for name in ("x-request-id", "x-correlation-id", "cache-control", "content-security-policy", "referrer-policy"):
        if name not in response.headers:
            raise AssertionError(f"{name} is missing")
    if "server" in response.headers:
        raise AssertionError("the answer names its server")


@schemathesis.check
class CountsItsRequests:
    """How far the run got, which its verdict does not say: a run that sends nothing passes too.

    It writes the number of answers by phase, operation, and status to the file that FUZZ_COUNTS names.
    """

    def __init__(self) -> None:
        self._answers: Counter[tuple[str, str, int]] = Counter()

    def after_response(self, ctx: Any, response: Any, case: Any) -> None:
        phase = str(ctx.phase)
        if phase == "stateful" and ctx.internals.find_parent(case_id=case.id) is None:
            phase = "first of a sequence"
        self._answers[phase, case.operation.label, response.status_code] += 1

    def after_run(self, _ctx: Any) -> None:
        counts = [[*answer, times] for answer, times in sorted(self._answers.items())]
        Path(os.environ["FUZZ_COUNTS"]).write_text(json.dumps(counts), "utf-8")
