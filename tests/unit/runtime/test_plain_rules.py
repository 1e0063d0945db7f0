"""Every rule that a request can break is stated in plain words."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from muster_runtime.plain_rules import plain_rule


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class Paint(BaseModel):
    model_config = ConfigDict(extra="forbid")

    color: Color


def _even(number: int) -> int:
    if number % 2:
        raise ValueError("must be even")
    return number


@pytest.mark.parametrize(
    ("annotation", "value", "rule"),
    [
        (Paint, {}, "is required"),
        (Paint, {"color": "red", "shade": 1}, "must be left out: there is no such field"),
        (Paint, {"color": "green"}, "must be 'red' or 'blue'"),
        (Paint, [], "must be an object"),
        (Literal["csv"], "xml", "must be 'csv'"),
        (str, 7, "must be a string"),
        (Annotated[str, Field(min_length=2)], "a", "must have at least 2 characters"),
        (Annotated[str, Field(min_length=1)], "", "must not be empty"),
        (Annotated[str, Field(max_length=2)], "abc", "must have at most 2 characters"),
        (Annotated[str, Field(pattern="^[a-z]$")], "A", "must match the pattern ^[a-z]$"),
        (bool, "perhaps", "must be true or false"),
        (bool, [], "must be true or false"),
        (int, "many", "must be an integer"),
        (int, None, "must be an integer"),
        (int, 1.5, "must be an integer"),
        (int, "9" * 5_000, "must be an integer of fewer digits"),
        (float, "x", "must be a number"),
        (Annotated[float, Field(allow_inf_nan=False)], float("nan"), "must be a finite number"),
        (Annotated[int, Field(gt=1)], 1, "must be greater than 1"),
        (Annotated[int, Field(ge=1)], 0, "must be at least 1"),
        (Annotated[int, Field(lt=1)], 1, "must be less than 1"),
        (Annotated[int, Field(le=1)], 2, "must be at most 1"),
        (list[int], 1, "must be a list"),
        (tuple[int, ...], 1, "must be a list"),
        (Annotated[list[int], Field(min_length=1)], [], "must not be empty"),
        (Annotated[list[int], Field(min_length=2)], [1], "must have at least 2 items"),
        (Annotated[list[int], Field(max_length=2)], [1, 2, 3], "must have at most 2 items"),
        (dict[str, int], 1, "must be an object"),
        (date, "yesterday", "must be a date such as 2025-08-06"),
        (date, "2025-08-06T01:00:00", "must be a date such as 2025-08-06, without a time"),
        (datetime, "yesterday", "must be an instant such as 2025-08-06T00:00:00Z"),
        (AwareDatetime, "2025-08-06T00:00:00", "must be an instant with an offset, such as 2025-08-06T00:00:00Z"),
        (Annotated[int, AfterValidator(_even)], 1, "must be even"),
        (bytes, 1, "must be a valid bytes"),  # none of a request's: pydantic's own words, without the worst of them
    ],
)
def test_a_rule_is_stated_in_plain_words(annotation: Any, value: Any, rule: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(annotation).validate_python(value)
    (fault,) = refused.value.errors()
    assert plain_rule(fault) == rule
