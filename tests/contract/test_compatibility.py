"""The compatibility gate: what may change within a major version, and what is refused and how."""

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pytest
from jsonschema_rs import Draft202012Validator, meta
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, field_validator

from muster_contracts import Event, __version__, compatibility
from muster_contracts.compatibility import current, misread, refusals
from muster_contracts.generate.schemas import schema_of
from muster_contracts.releases import Release
from muster_contracts.samples import samples_of
from tests.contract.schema_changes import ACCEPTED, REFUSED, TOPIC, TYPE, Cat, Change, Node, Sampled, drop, release

RELEASED = Path(__file__).parents[2] / "contracts/released"

# The version of today's models once they are released.
VERSION = __version__.removesuffix(".dev")


def test_a_hundred_changes_have_a_verdict() -> None:
    assert len(REFUSED) + len(ACCEPTED) >= 100


@pytest.mark.parametrize(("change", "field", "rule"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_a_breaking_change_is_refused_by_subject_field_and_rule(change: Change, field: str, rule: str) -> None:
    today = release()
    change(today)
    (refusal,) = [found for found in refusals(release(), today) if found.field == field and rule in found.rule]
    assert refusal.subject in {TYPE, TOPIC}
    assert refusal.instead


@pytest.mark.parametrize("change", [pytest.param(row[1], id=row[0]) for row in ACCEPTED])
def test_a_harmless_change_is_accepted(change: Change) -> None:
    today = release()
    change(today)
    for schema in today["schemas"].values():
        meta.validate(schema)
    assert refusals(release(), today) == []


def test_a_refusal_says_what_to_do_instead() -> None:
    today = release()
    drop("properties/label")(today)
    (refusal,) = refusals(release(), today)
    assert str(refusal) == (
        "muster.billing.Sampled.v1, label: the field is removed or renamed. "
        "Instead: keep it; else add muster.billing.Sampled.v2 beside it, and leave v1 as it was."
    )


RELEASES = [pytest.param(path, id=path.stem) for path in sorted(RELEASED.glob("*.json"))]


def test_something_is_released() -> None:
    assert RELEASES


@pytest.mark.parametrize("path", RELEASES)
def test_todays_models_and_every_release_can_read_each_other(path: Path) -> None:
    released = json.loads(path.read_text("utf-8"))
    today = current()
    assert refusals(released, today) == []
    assert misread(released, today) == []
    for event_type, schema in released["schemas"].items():
        _validate(released["records"], event_type, today["schemas"][event_type])
        _validate(today["records"], event_type, schema)


def _validate(records: list[dict[str, Any]], event_type: str, schema: dict[str, Any]) -> None:
    matching = [record for record in records if dict(record["headers"])["ce_type"] == event_type]
    assert matching
    for record in matching:
        Draft202012Validator(schema).validate(json.loads(record["value"] or "null"))


def seat_record(today: Release) -> dict[str, Any]:
    """The golden record of an assigned seat, to be changed."""
    return next(record for record in today["records"] if "SeatAssigned" in str(record["headers"]))


def test_a_released_record_that_can_no_longer_be_read_is_reported() -> None:
    released = current()
    seat = seat_record(released)
    seat["value"] = seat["value"].replace("seat_id", "chair_id")
    (refusal,) = misread(released, current())
    assert refusal.subject == "muster.entitlements.SeatAssigned.v1"
    assert "seat_id: Field required" in refusal.rule


def test_a_released_record_whose_value_changes_is_reported() -> None:
    """As with a validator that transforms a value, or a field that is read under another name."""
    released = current()
    seat = seat_record(released)
    seat["value"] = seat["value"].replace('{"agency_id"', '{"lost":"value","agency_id"')
    (refusal,) = misread(released, current())
    assert (refusal.field, refusal.rule) == ("lost", 'a released record\'s "value" becomes nothing')


def test_a_header_that_changes_is_reported() -> None:
    released = current()
    seat = seat_record(released)
    seat["headers"] = [[name, "7" if name == "ce_epoch" else text] for name, text in seat["headers"]]
    seat["headers"].append(["ce_new", "x"])
    (refusal,) = misread(released, current())
    assert (refusal.field, refusal.rule) == ("ce_new", "the header of a released record becomes None")


def test_omitted_nulls_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    released = current()
    monkeypatch.setattr(compatibility, "encode", lambda event: event.model_dump_json(exclude_none=True).encode())
    assert {refusal.rule for refusal in misread(released, current())} >= {"a released record's null becomes nothing"}


def test_a_record_that_a_released_reader_refuses_is_reported() -> None:
    today = current()
    seat = seat_record(today)
    seat["value"] = seat["value"].replace('"agency_id":"', '"agency_id":"a lower case ')
    seat["headers"] = [header for header in seat["headers"] if header[0] != "ce_sequence"]
    rules = [refusal.rule for refusal in misread(current(), today)]
    assert [rule for rule in rules if "a released reader refuses today's record" in rule]
    assert "today's record lacks the header ce_sequence" in rules


class Plain(Event):
    """A released model."""

    event_type: ClassVar[str] = TYPE
    topic: ClassVar[str] = TOPIC

    label: str = Field(description="A label.", max_length=40, examples=["Label"])
    count: int = Field(description="How many.", ge=1, examples=[1])
    quota: int | None = Field(default=None, description="A quota.", examples=[5])


class Narrowed(Plain):
    """A later model with a validator that no schema shows."""

    @field_validator("count")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd")
        return value


class Transformed(Plain):
    """A later model that changes what it reads."""

    @field_validator("label")
    @classmethod
    def _lower(cls, value: str) -> str:
        return value.lower()


class Aliased(Plain):
    """A later model that reads an optional field by another name."""

    quota: int | None = Field(default=None, validation_alias="limit", description="A quota.", examples=[5])


class Forbidding(BaseModel):
    """A later nested model that refuses what it does not know."""

    model_config = ConfigDict(extra="forbid")

    amount_minor: int = Field(description="Amount in minor units: cents for USD.")
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 alphabetic code.")


class Strict(Sampled):
    """A later model whose price is one of these."""

    price: Forbidding = Field(description="A price.")  # type: ignore[assignment]


@pytest.mark.parametrize("later", [Narrowed, Transformed, Aliased], ids=lambda later: later.__name__)
def test_a_change_that_no_schema_shows_is_reported(later: type[Plain], monkeypatch: pytest.MonkeyPatch) -> None:
    released = release() | {"schemas": {TYPE: schema_of(Plain)}, "samples": {TYPE: samples_of(Plain)}}
    assert refusals(released, released | {"schemas": {TYPE: schema_of(later)}}) == []
    monkeypatch.setattr(compatibility, "event_types", lambda: {TYPE: Plain})
    assert misread(released, released) == []
    monkeypatch.setattr(compatibility, "event_types", lambda: {TYPE: later})
    assert {refusal.subject for refusal in misread(released, released)} == {TYPE}


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be odd")
    return value


Odd = Annotated[int, AfterValidator(_odd)]


class Owl(BaseModel):
    """Another kind of pet, whose legs are any number."""

    kind: Literal["owl"] = "owl"
    legs: int = Field(description="How many.", examples=[1])


class OddOwl(Owl):
    """The same in a later model: only odd ones are taken."""

    legs: Odd = Field(description="How many.", examples=[1])


class Holder(Event):
    """A model that holds one thing."""

    event_type: ClassVar[str] = TYPE
    topic: ClassVar[str] = TOPIC


def holding(held: Any, example: Any) -> type[Event]:
    """A model that holds a thing of a type."""
    field: Any = (held, Field(description="A thing.", examples=[example]))
    return create_model("Held", __base__=Holder, held=field)


CAT = {"kind": "cat", "lives": 9}


@pytest.mark.parametrize(
    ("before", "later", "example"),
    [
        pytest.param(dict[str, int], dict[str, Odd], {"a": 1}, id="a dictionary's value"),
        pytest.param(dict[str, int], dict[str, Odd], {}, id="a dictionary's value, whose example is empty"),
        pytest.param(dict[str, Owl], dict[str, OddOwl], {"a": {"legs": 1}}, id="an object in a dictionary"),
        pytest.param(tuple[str, int], tuple[str, Odd], ["a", 1], id="a pair's part"),
        pytest.param(tuple[str, Owl], tuple[str, OddOwl], ["a", {"legs": 1}], id="an object in a pair"),
        pytest.param(list[Owl], list[OddOwl], [], id="a list's item, whose example is empty"),
        pytest.param(Owl | None, OddOwl | None, None, id="an optional object, whose example is none"),
        pytest.param(Cat | Owl, Cat | OddOwl, CAT, id="an alternative that is not the example"),
        pytest.param(
            Annotated[Cat | Owl, Field(discriminator="kind")],
            Annotated[Cat | OddOwl, Field(discriminator="kind")],
            CAT,
            id="a kind of object that is not the example",
        ),
        pytest.param(
            Annotated[Cat | Owl, Field(discriminator="kind")] | None,
            Annotated[Cat | OddOwl, Field(discriminator="kind")] | None,
            CAT,
            id="a kind of an optional object",
        ),
    ],
)
def test_a_changed_validator_is_reported_wherever_it_is(
    before: Any, later: Any, example: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = release() | {"schemas": {}, "samples": {TYPE: samples_of(holding(before, example))}}
    monkeypatch.setattr(compatibility, "event_types", lambda: {TYPE: holding(before, example)})
    assert misread(released, released) == []
    monkeypatch.setattr(compatibility, "event_types", lambda: {TYPE: holding(later, example)})
    assert {refusal.subject for refusal in misread(released, released)} == {TYPE}


def test_the_samples_of_a_recursive_model_are_finite() -> None:
    assert 0 < len(samples_of(holding(Node, {"name": "a", "below": []}))) < 100


def test_todays_samples_are_shown_to_the_released_readers() -> None:
    """No golden record shows this: an optional field's bound that is wider now."""
    today = release() | {"samples": {TYPE: samples_of(Plain)}}
    schema = schema_of(Plain)
    schema["properties"]["count"]["maximum"] = 3
    rules = [refusal.rule for refusal in misread(today | {"schemas": {TYPE: schema}, "samples": {}}, today)]
    assert rules == ["a released reader refuses today's record: 1000003 is greater than the maximum of 3"]


def test_an_optional_header_may_be_missing_whichever_record_was_released_last() -> None:
    released = current()
    released["records"].reverse()
    assert misread(released, current()) == []


def test_a_nested_model_that_forbids_unknown_fields_is_reported() -> None:
    today = release()
    today["schemas"][TYPE] = schema_of(Strict)
    assert "additionalProperties changed from True to False" in [found.rule for found in refusals(release(), today)]


def test_a_default_from_a_factory_is_a_default() -> None:
    class Later(Sampled):
        """A later model with optional fields."""

        notes: list[str] = Field(default_factory=list, description="Notes.")
        label: str = Field(description="A label.", max_length=40, deprecated=True, json_schema_extra={"x-unit": "none"})

    today = release()
    today["schemas"][TYPE] = schema_of(Later)
    assert refusals(release(), today) == []
