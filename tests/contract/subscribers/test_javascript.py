"""The JavaScript example reads a record as the Python kit does."""

import importlib
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event

from muster_contracts import Decoded, MalformedRecord, NewerMajor, UnknownType, decode
from muster_contracts.enrollment import ContactErased, ContactRecorded
from muster_contracts.testing import Record, build, golden_records, record
from muster_local.node import NODE, installed
from tests.contract.subscribers.examples import EXAMPLES, SCHEMAS, SEATS
from tests.contract.subscribers.hostile_records import DATA, GOOD, STRICTER, hostile


def verdict(item: Record) -> str:
    """How muster-contracts classifies a record."""
    try:
        decoded = decode(item.headers, item.value, item.key)
    except MalformedRecord:
        return "malformed"
    return {Decoded: "fact", UnknownType: "unknown", NewerMajor: "newer"}[type(decoded)]


def in_javascript(program: str, records: Sequence[Record]) -> Any:
    """What a program that runs beside the JavaScript example prints about `records`, read as JSON."""
    given = [
        {
            "headers": [[name, value.hex()] for name, value in item.headers],
            "key": item.key.hex(),
            "value": None if item.value is None else item.value.hex(),
        }
        for item in records
    ]
    prelude = """
        import { readFileSync } from "node:fs";
        const bytes = (hex) => (hex === null ? null : Buffer.from(hex, "hex"));
        const together = (headers) => {
          const all = {};
          for (const [name, hex] of headers) all[name] = name in all ? [all[name], bytes(hex)].flat() : bytes(hex);
          return all;  // as kafkajs has them
        };
        const records = JSON.parse(readFileSync(0, "utf8")).map(({ headers, key, value }) => ({
          headers: together(headers),
          key: bytes(key),
          value: bytes(value),
        }));
    """
    done = subprocess.run(
        [str(NODE), "--input-type=module", "--eval", prelude + program],
        cwd=installed(EXAMPLES / "javascript"),
        env={**os.environ, "SCHEMAS": str(SCHEMAS)},
        input=json.dumps(given).encode(),
        check=True,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    return json.loads(done.stdout)


def verdicts_of_javascript(records: Sequence[Record]) -> list[list[str]]:
    """How the JavaScript example classifies each record, and its complaint."""
    program = """
        const { MalformedRecord, read } = await import("./reading.mjs");
        const verdicts = records.map((record) => {
          try {
            return [read(record).kind, ""];
          } catch (error) {
            if (error instanceof MalformedRecord) return ["malformed", error.message];
            throw error;
          }
        });
        console.log(JSON.stringify(verdicts));
    """
    return cast("list[list[str]]", in_javascript(program, records))


def test_javascript_refuses_what_python_refuses() -> None:
    names, records = zip(*hostile(), strict=True)
    assert len(set(names)) == len(names)
    expected = [verdict(item) for item in records]
    assert set(expected) == {"fact", "unknown", "newer", "malformed"}
    found = [kind for kind, _ in verdicts_of_javascript(records)]
    assert dict(zip(names, found, strict=True)) == dict(zip(names, expected, strict=True))


def test_javascript_also_refuses_what_only_python_converts() -> None:
    records = [item for _, item in STRICTER]
    assert {verdict(item) for item in records} == {"fact"}
    assert {kind for kind, _ in verdicts_of_javascript(records)} == {"malformed"}


def test_javascript_names_the_field_and_the_rule_and_never_the_data() -> None:
    secret = "ada@nasa.example"
    values = [
        secret.encode(),
        b'"' + secret.encode() + b'" x',
        b'{"agency_id": "' + secret.encode(),
        json.dumps({"agency_id": "NASA", "subject_ref": secret}).encode(),
        json.dumps({**DATA, "agency_id": secret}).encode(),
        json.dumps({**DATA, "seat_id": [secret]}).encode(),
        json.dumps({**DATA, secret: "\ud800"}).encode(),
    ]
    told = verdicts_of_javascript([replace(GOOD, value=value) for value in values])
    assert {kind for kind, _ in told} == {"malformed"}
    assert not [complaint for _, complaint in told if secret in complaint or "ada" in complaint]
    assert "value: not JSON" in told[0][1]
    assert "must have required property 'seat_id'" in told[3][1]
    assert "agency_id: must match pattern" in told[4][1]
    assert "seat_id: must be string" in told[5][1]


def test_javascript_reads_every_golden_record_of_its_topic() -> None:
    golden = [each for each in golden_records() if each.event.topic == SEATS.name]
    assert {kind for kind, _ in verdicts_of_javascript([each.record for each in golden])} == {"fact"}


def test_a_tombstone_of_a_compacted_topic_erases_its_key_with_the_official_sdks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person = record(build(ContactRecorded))
    erased = build(ContactErased, subject_ref=person.key.decode())
    tombstone = record(erased, sequence=2)
    foreign = record(erased.model_copy(update={"agency_id": "DOE"}))
    moved = record(build(ContactRecorded, agency_id="DOE", subject_ref=person.key.decode()))
    assert (tombstone.value, tombstone.key) == (None, person.key)

    monkeypatch.syspath_prepend(str(EXAMPLES / "python"))
    example = importlib.import_module("tombstones")
    latest: dict[bytes, tuple[bytes, Any]] = {}
    example.keep(latest, person.headers, person.value, person.key)
    example.keep(latest, foreign.headers, foreign.value, foreign.key)
    assert latest == {person.key: (b"NASA", json.loads(person.value or b""))}
    # Python's SDK reads a tombstone as an event without data; JavaScript's refuses it.
    unaware = KafkaMessage(headers=dict(tombstone.headers), key=tombstone.key, value=cast("bytes", tombstone.value))
    assert from_binary_event(unaware).get_data() is None
    example.keep(latest, tombstone.headers, tombstone.value, tombstone.key)
    assert latest == {}
    # Compaction may remove a tombstone if a later record of its key follows.
    example.keep(latest, person.headers, person.value, person.key)
    example.keep(latest, moved.headers, moved.value, moved.key)
    example.keep(latest, foreign.headers, foreign.value, foreign.key)
    assert latest == {}

    program = """
        const { Kafka } = await import("cloudevents");
        const { keep } = await import("./tombstones.mjs");
        const latest = new Map();
        const sizes = records.map((record) => (keep(latest, record), latest.size));
        const headers = {};
        for (const [name, value] of Object.entries(records[2].headers)) headers[name] = value.toString();
        let refusal = null;
        try {
          Kafka.toEvent({ headers, key: records[2].key.toString(), value: records[2].value });
        } catch (error) {
          refusal = error.message;
        }
        console.log(JSON.stringify({ sizes, refusal }));
    """
    found = in_javascript(program, [person, foreign, tombstone, person, moved, foreign])
    assert found == {"sizes": [1, 1, 0, 1, 1, 0], "refusal": "Value is null or undefined"}
