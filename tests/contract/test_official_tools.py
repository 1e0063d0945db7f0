"""The official tools of AsyncAPI and CloudEvents read the documents and records."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event

from muster_contracts import Erasure, event_types, topics
from muster_contracts.testing import GoldenRecord, golden_records
from muster_local.node import NODE, installed

CONTRACTS = Path(__file__).parents[2] / "contracts"
CHECKS = Path(__file__).parent / "javascript"

GOLDEN = [pytest.param(golden, id=f"{golden.event.event_type}-{golden.example}") for golden in golden_records()]

ERROR, WARNING = 0, 1


def node(script: str, *arguments: str) -> Any:
    """What a script prints, read as JSON."""
    command = [str(NODE), str(installed(CHECKS) / script), *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def test_the_asyncapi_parser_accepts_the_document_without_a_warning() -> None:
    read = node("asyncapi.mjs", str(CONTRACTS / "asyncapi.json"))
    assert [found for found in read["diagnostics"] if found["severity"] in (ERROR, WARNING)] == []
    assert set(read["messages"]) == set(event_types())
    assert set(read["channels"]) == {topic.name for topic in topics().values() if topic.owner != "sandbox"}


def test_the_asyncapi_parser_would_report_a_fault(tmp_path: Path) -> None:
    document = json.loads((CONTRACTS / "asyncapi.json").read_text("utf-8"))
    del document["operations"]["publish.muster.billing.term"]["action"]
    faulty = tmp_path / "asyncapi.json"
    faulty.write_text(json.dumps(document), encoding="utf-8")
    assert any(found["severity"] == ERROR for found in node("asyncapi.mjs", str(faulty))["diagnostics"])


@pytest.mark.parametrize("golden", GOLDEN)
def test_the_python_sdk_reads_every_golden_record(golden: GoldenRecord) -> None:
    record, envelope = golden.record, golden.envelope
    # The SDK reads text: it cannot represent a tombstone's missing value.
    event = from_binary_event(KafkaMessage(headers=dict(record.headers), key=record.key, value=record.value or b"null"))
    assert event.get_id() == envelope.id
    assert event.get_source() == envelope.source
    assert event.get_type() == envelope.type
    assert event.get_time() == envelope.time
    assert event.get_datacontenttype() == "application/json"
    assert event.get_extension("sequence") == f"{envelope.sequence:020d}"
    assert event.get_extension("epoch") == str(envelope.epoch)
    assert event.get_extension("correlationid") == envelope.correlation_id
    assert event.get_extension("causationid") == envelope.causation_id
    assert event.get_data() == json.loads(record.value or b"null")


def test_the_javascript_sdk_reads_every_golden_record() -> None:
    facts = [golden for golden in golden_records() if not isinstance(golden.event, Erasure)]
    paths = [f"examples/{golden.event.event_type}/{golden.example}.record.json" for golden in facts]
    events = node("cloudevents.mjs", *(str(CONTRACTS / path) for path in paths))
    assert len(events) == len(facts)
    for event, golden in zip(events, facts, strict=True):
        assert event["id"] == golden.envelope.id
        assert event["type"] == golden.envelope.type
        assert event["source"] == golden.envelope.source
        assert event["sequence"] == f"{golden.envelope.sequence:020d}"
        # The SDK uses the record's key for this, which on a compacted topic is not the agency.
        assert event["partitionkey"] == golden.event.record_key
        assert event["data"]["agency_id"] == golden.envelope.agency_id
        assert event["data"] == json.loads(golden.record.value or b"null")
