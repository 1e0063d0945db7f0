"""Says in plain words which rule a value breaks: pydantic's messages are for Python programmers."""

from collections.abc import Mapping
from typing import Any

# By pydantic's error type; the names in braces come from the error's context.
_RULES = {
    "missing": "is required",
    "extra_forbidden": "must be left out: there is no such field",
    "none_required": "must be null",
    "string_type": "must be a string",
    "string_unicode": "must be a string in UTF-8",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_parsing_size": "must be an integer of fewer digits",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "date_type": "must be a date such as 2025-08-06",
    "date_parsing": "must be a date such as 2025-08-06",
    "date_from_datetime_parsing": "must be a date such as 2025-08-06",
    "date_from_datetime_inexact": "must be a date such as 2025-08-06, without a time",
    "time_type": "must be a time such as 09:30",
    "time_parsing": "must be a time such as 09:30",
    "datetime_type": "must be an instant such as 2025-08-06T00:00:00Z",
    "datetime_parsing": "must be an instant such as 2025-08-06T00:00:00Z",
    "datetime_from_date_parsing": "must be an instant such as 2025-08-06T00:00:00Z",
    "timezone_aware": "must be an instant with an offset, such as 2025-08-06T00:00:00Z",
    "url_type": "must be a URL",
    "url_parsing": "must be a URL",
    "url_scheme": "must be a URL that begins with {expected_schemes}",
    "url_too_long": "must be a URL of at most {max_length} characters",
    "uuid_type": "must be a UUID",
    "uuid_parsing": "must be a UUID",
}


def plain_rule(fault: Mapping[str, Any]) -> str:
    """The rule of one of pydantic's errors. A validator's own message already is a rule and stays as it is."""
    kind = fault["type"]
    if kind in ("value_error", "assertion_error"):
        return str(fault["ctx"]["error"])
    if kind in ("string_too_short", "too_short") and fault["ctx"]["min_length"] == 1:
        return "must not be empty"
    rule = _RULES.get(kind)
    if rule is None:
        return str(fault["msg"]).replace("Input should be", "must be").replace("Input should", "must")
    return rule.format(**fault.get("ctx", {}))
