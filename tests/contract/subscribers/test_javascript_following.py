"""When the JavaScript copy begins anew, and when it gives up: with what kafkajs tells it, and without a Kafka."""

import json

from muster_contracts.entitlements import AgencyAccess, SubjectAccess
from muster_contracts.testing import build, record
from tests.contract.subscribers.test_javascript import in_javascript

AGENCY, PERSON = record(build(AgencyAccess)), record(build(SubjectAccess))

# One partition with seven records; what kafkajs tells of it, a test says.
FAKE = f"""
    const {{ follow }} = await import("./following.mjs");
    const {{ NotReady, Unreadable }} = await import("./access.mjs");
    const [agency, person] = records;
    const nothing = async () => {{}};
    const consumers = [];
    const failures = [];  // of asking for the ends
    const ended = [];
    const found = [];
    const kafka = {{
      logger: () => ({{ warn() {{}} }}),
      admin: () => ({{
        connect: nothing,
        disconnect: nothing,
        async fetchTopicOffsets() {{
          if (failures.length) throw failures.pop();
          return [{{ partition: 0, low: "0", high: "7" }}];
        }},
      }}),
      consumer({{ groupId, retry }}) {{
        const listeners = {{}};
        const consumer = {{
          groupId,
          connected: true,
          events: {{ GROUP_JOIN: "join", END_BATCH_PROCESS: "end", CRASH: "crash" }},
          on: (event, listener) => (listeners[event] = listener),
          connect: nothing,
          subscribe: nothing,
          run: async ({{ eachMessage }}) => (consumer.bring = (message) => eachMessage({{ partition: 0, message }})),
          disconnect: async () => void (consumer.connected = false),
          join: () => void listeners.join({{ payload: {{}} }}),
          reach: (lastOffset) => listeners.end({{ payload: {{ partition: 0, lastOffset }} }}),
          crash: async (error, retriable) => {{
            if (retriable) await retry.restartOnFailure(error);
            listeners.crash({{ payload: {{ error }} }});
          }},
        }};
        consumers.push(consumer);
        return consumer;
      }},
    }};
    const fill = async (consumer) => {{
      consumer.join();
      await consumer.bring(agency);
      await consumer.bring(person);
      consumer.reach("6");
    }};
    const copy = await follow(kafka, "topic", "name", (error) => ended.push(error.message));
    const answer = () => {{
      try {{
        return copy().check({json.dumps(PERSON.key.decode())}, null, "2025-09-01T00:00:00Z").reason;
      }} catch (error) {{
        if (error instanceof NotReady) return "NotReady";
        throw error;
      }}
    }};
    const until = async (holds) => {{
      const deadline = Date.now() + 20_000;
      while (!holds()) {{
        if (Date.now() > deadline) throw new Error(`in vain: ${{holds}}`);
        await new Promise(setImmediate);
      }}
    }};
    const turns = async () => {{
      for (let turn = 0; turn < 100; turn += 1) await new Promise(setImmediate);
    }};
"""


def test_what_comes_after_a_join_by_an_earlier_fetch_completes_no_copy() -> None:
    program = f"""{FAKE}
        await fill(consumers[0]);
        await until(() => answer() === "seat_assigned");
        consumers[0].join();  // a fetch of another broker still brings the last record
        await consumers[0].bring(agency);
        consumers[0].reach("6");
        await turns();
        found.push(answer());
        await until(() => consumers.length === 2);
        found.push(answer(), consumers[0].connected, consumers[0].groupId === consumers[1].groupId);
        consumers[0].join();  // it has not noticed yet that it is to stop
        await fill(consumers[1]);
        await until(() => answer() === "seat_assigned");
        found.push(consumers.length, consumers[1].connected);
        console.log(JSON.stringify(found));
    """
    assert in_javascript(program, [AGENCY, PERSON]) == ["NotReady", "NotReady", False, False, 2, True]


def test_it_asks_again_for_the_ends_that_could_not_be_asked_for() -> None:
    program = f"""{FAKE}
        failures.push(new Error("not the leader"));
        await fill(consumers[0]);
        await turns();
        found.push(answer());
        await until(() => answer() === "seat_assigned");
        console.log(JSON.stringify(found));
    """
    assert in_javascript(program, [AGENCY, PERSON]) == ["NotReady"]


def test_it_begins_anew_after_what_another_try_may_help_and_otherwise_tells() -> None:
    program = f"""{FAKE}
        await fill(consumers[0]);
        await until(() => answer() === "seat_assigned");
        await consumers[0].crash(new Error("the connection was lost"), true);
        found.push(answer());
        await until(() => consumers.length === 2);
        await fill(consumers[1]);
        await until(() => answer() === "seat_assigned");
        await consumers[0].crash(new Error("an old one"), true);
        found.push(answer(), [...ended], new Unreadable("why").retriable);
        await consumers[1].crash(new Error("kafkajs's words", {{ cause: new Unreadable("why") }}), false);
        await turns();
        found.push(answer(), ended, consumers.length);
        console.log(JSON.stringify(found));
    """
    found = in_javascript(program, [AGENCY, PERSON])
    assert found == ["NotReady", "seat_assigned", [], False, "NotReady", ["why"], 2]
