"""When the JavaScript copy starts over, and when it gives up, driven by kafkajs's events, without a Kafka."""

import json

from muster_contracts.entitlements import AgencyAccess, SubjectAccess
from muster_contracts.testing import build, record
from tests.contract.subscribers.test_javascript import in_javascript

AGENCY, PERSON = record(build(AgencyAccess)), record(build(SubjectAccess))

# The copy's answer, and a wait until a condition holds.
ANSWERS = f"""
    const {{ NotReady }} = await import("./access.mjs");
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
"""

# One partition with seven records; each test decides which of kafkajs's events happen.
FAKE = f"""
    const {{ follow }} = await import("./following.mjs");
    const {{ Unreadable }} = await import("./access.mjs");
    const [agency, person] = records;
    const nothing = async () => {{}};
    const admins = [];
    const consumers = [];
    const failures = [];  // of asking for the ends
    const refusals = [];  // of connecting
    const crashes = [];  // while it joins
    const ended = [];
    const found = [];
    const logged = [];
    let failing = nothing;  // what the subscriber does once it ended
    const kafka = {{
      logger: () => ({{ warn() {{}}, error: (message) => logged.push(message) }}),
      admin() {{
        const admin = {{
          connected: true,
          connect: nothing,
          disconnect: async () => void (admin.connected = false),
          async fetchTopicOffsets() {{
            if (failures.length) throw failures.pop();
            return [{{ partition: 0, low: "0", high: "7" }}];
          }},
        }};
        admins.push(admin);
        return admin;
      }},
      consumer({{ groupId, retry, allowAutoTopicCreation }}) {{
        const listeners = {{}};
        let offset = 0;
        const consumer = {{
          groupId,
          allowAutoTopicCreation,
          connected: true,
          events: {{ GROUP_JOIN: "join", FETCH_START: "fetch", END_BATCH_PROCESS: "end", CRASH: "crash" }},
          // Like kafkajs, it does not catch what a listener throws at once.
          on: (event, listener) => {{
            listeners[event] = (payload) =>
              void Promise.resolve(listener({{ payload }})).catch((error) => logged.push(error.message));
          }},
          async connect() {{
            if (refusals.length) throw refusals.shift();
          }},
          subscribe: nothing,
          async run({{ eachMessage }}) {{
            consumer.bring = (message) =>
              eachMessage({{ partition: 0, message: {{ ...message, offset: String(offset++) }} }});
            if (crashes.length) await consumer.crash(crashes.shift(), false);
          }},
          disconnect: async () => void (consumer.connected = false),
          join: () => listeners.join({{}}),
          async fetch() {{
            try {{
              listeners.fetch({{ nodeId: "1" }});
            }} catch (error) {{
              await consumer.crash(error, error.retriable);
            }}
          }},
          reach: (lastOffset) => listeners.end({{ partition: 0, lastOffset }}),
          async crash(error, retriable) {{
            await consumer.disconnect();
            if (retriable && (await retry.restartOnFailure(error))) throw new Error("kafkajs starts this one again");
            listeners.crash({{ error }});
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
    const copy = await follow(kafka, "topic", "name", (error) => {{
      ended.push(error.message);
      return failing();
    }});
    {ANSWERS}
    const turns = async () => {{
      for (let turn = 0; turn < 100; turn += 1) await new Promise(setImmediate);
    }};
"""


def test_records_of_an_earlier_fetch_after_a_join_complete_no_copy() -> None:
    program = f"""{FAKE}
        await fill(consumers[0]);
        await until(() => answer() === "seat_assigned");
        await consumers[0].fetch();
        consumers[0].join();  // a fetch of another broker still brings the last record
        await consumers[0].bring(agency);
        consumers[0].reach("6");
        await turns();
        found.push(answer());
        await consumers[0].fetch();
        await until(() => consumers.length === 2);
        found.push(answer(), consumers[0].connected, consumers[0].groupId === consumers[1].groupId);
        consumers[0].join();  // it has not noticed yet that it is to stop
        await fill(consumers[1]);
        await until(() => answer() === "seat_assigned");
        await consumers[1].fetch();
        found.push(consumers.length, consumers[1].connected);
        console.log(JSON.stringify(found));
    """
    assert in_javascript(program, [AGENCY, PERSON]) == ["NotReady", "NotReady", False, False, 2, True]


def test_the_copy_asks_again_for_ends_that_it_failed_to_fetch() -> None:
    program = f"""{FAKE}
        failures.push(new Error("not the leader"));
        await fill(consumers[0]);
        await turns();
        found.push(answer());
        await until(() => answer() === "seat_assigned");
        found.push(admins.map(({{ connected }}) => connected));  // a new client each time
        console.log(JSON.stringify(found));
    """
    assert in_javascript(program, [AGENCY, PERSON]) == ["NotReady", [False, False]]


def test_the_copy_starts_over_after_a_retriable_error_and_otherwise_reports_it() -> None:
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


def test_the_copy_ends_once_starting_over_cannot_succeed() -> None:
    program = f"""{FAKE}
        const lost = Object.assign(new Error("no broker"), {{ retriable: true }});
        refusals.push(Object.assign(new Error("no more tries"), {{ retriable: false, cause: lost }}));
        refusals.push(Object.assign(new Error("wrong password"), {{ retriable: false }}));
        await fill(consumers[0]);
        await until(() => answer() === "seat_assigned");
        await consumers[0].crash(new Error("the connection was lost"), true);
        await until(() => ended.length);
        found.push(answer(), ended, consumers.map(({{ connected }}) => connected));
        console.log(JSON.stringify(found));
    """
    found = in_javascript(program, [AGENCY, PERSON])
    assert found == ["NotReady", ["wrong password"], [False, False, False]]


def test_an_error_in_the_callback_about_the_end_changes_nothing() -> None:
    program = f"""{FAKE}
        failing = () => {{
          throw new Error("at once");
        }};
        await fill(consumers[0]);
        await until(() => answer() === "seat_assigned");
        crashes.push(new Unreadable("why"));
        await consumers[0].crash(new Error("the connection was lost"), true);
        await until(() => logged.length);
        found.push(ended, logged, answer(), consumers.length);
        console.log(JSON.stringify(found));
    """
    told = "the failure callback of topic threw: Error: "
    assert in_javascript(program, [AGENCY, PERSON]) == [["why"], [f"{told}at once"], "NotReady", 2]
    program = f"""{FAKE}
        failing = async () => {{
          throw new Error("later");
        }};
        await fill(consumers[0]);
        await consumers[0].crash(new Unreadable("why"), false);
        await until(() => logged.length);
        console.log(JSON.stringify([ended, logged, answer(), consumers.length]));
    """
    assert in_javascript(program, [AGENCY, PERSON]) == [["why"], [f"{told}later"], "NotReady", 1]


def test_no_example_lets_the_brokers_create_its_topic() -> None:
    program = f"""{FAKE}
        const {{ Kafka }} = (await import("kafkajs")).default;
        Kafka.prototype.admin = () => ({{
          connect: nothing,
          disconnect: nothing,
          describeCluster: async () => ({{ clusterId: "cluster" }}),
          describeGroups: async () => ({{ groups: [{{ members: [] }}] }}),
        }});
        Kafka.prototype.consumer = ({{ allowAutoTopicCreation }}) => {{
          console.log(JSON.stringify([consumers[0].allowAutoTopicCreation, allowAutoTopicCreation]));
          process.exit(0);
        }};
        await import("./subscriber.mjs");
    """
    assert in_javascript(program, [AGENCY, PERSON]) == [False, False]
