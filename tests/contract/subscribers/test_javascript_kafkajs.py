"""How the JavaScript copy starts over with kafkajs's own consumer, on brokers that the test simulates."""

from tests.contract.subscribers.test_javascript import in_javascript
from tests.contract.subscribers.test_javascript_following import AGENCY, ANSWERS, PERSON

# A topic of two partitions; all records are in the first. A test may change a broker's answer to a fetch.
BROKERS = f"""
    const {{ createRequire }} = await import("node:module");
    const require = createRequire(`${{process.cwd()}}/`);
    const createConsumer = require("kafkajs/src/consumer");
    const InstrumentationEventEmitter = require("kafkajs/src/instrumentation/emitter");
    const {{ MemberAssignment }} = require("kafkajs/src/consumer/assignerProtocol");
    const {{ KafkaJSOffsetOutOfRange }} = require("kafkajs/src/errors");
    const {{ follow }} = await import("./following.mjs");
    const nothing = async () => {{}};
    const turn = () => new Promise(setImmediate);
    let log = records;
    let leaders = ["1", "2"];
    const clusters = [];
    const logger = {{ namespace: () => logger, debug() {{}}, info() {{}}, warn() {{}}, error() {{}} }};
    const empty = {{ responses: [] }};
    const read = async ({{ topics: [{{ partitions }}] }}) => {{
      await turn();
      const from = partitions.find(({{ partition }}) => partition === 0)?.fetchOffset;
      if (Number(from) > log.length) {{
        const told = {{ message: "out of range", type: "OFFSET_OUT_OF_RANGE", retriable: false }};
        throw new KafkaJSOffsetOutOfRange(told, {{ topic: "topic", partition: 0 }});
      }}
      const messages = log.map((each, at) => ({{ ...each, offset: String(at) }})).slice(from ?? log.length);
      const data = {{ partition: 0, highWatermark: String(log.length), abortedTransactions: [], messages }};
      return messages.length ? {{ responses: [{{ topicName: "topic", partitions: [data] }}] }} : empty;
    }};
    const makeCluster = () => {{
      const committed = {{}};
      const cluster = {{
        connected: false,
        connect: async () => void (cluster.connected = true),
        disconnect: async () => void (cluster.connected = false),
        addMultipleTargetTopics: nothing,
        refreshMetadata: nothing,
        refreshMetadataIfNecessary: nothing,
        getNodeIds: () => [...new Set(leaders)],
        findTopicPartitionMetadata: () => leaders.map((leader, partitionId) => ({{ partitionId, leader }})),
        committedOffsets: () => committed,
        defaultOffset: () => "-2",
        fetchTopicsOffset: async (topics) =>
          topics.map(({{ topic, partitions }}) => ({{
            topic,
            partitions: partitions.map(({{ partition }}) => ({{ partition, offset: "0" }})),
          }})),
        findBroker: async ({{ nodeId }}) => ({{ fetch: (request) => cluster.fetch(request, nodeId) }}),
        fetch: read,
        findGroupCoordinator: async () => cluster.coordinator,
        coordinator: {{
          isConnected: () => true,
          joinGroup: async () => ({{ generationId: 1, leaderId: "another", memberId: "this" }}),
          syncGroup: async () => ({{
            memberAssignment: MemberAssignment.encode({{ version: 0, assignment: {{ topic: [0, 1] }} }}),
          }}),
          heartbeat: nothing,
          leaveGroup: nothing,
          offsetCommit: nothing,
          offsetFetch: async ({{ topics }}) => ({{
            responses: topics.map(({{ topic, partitions }}) => ({{
              topic,
              partitions: partitions.map(({{ partition }}) => ({{ partition, offset: "-1" }})),
            }})),
          }}),
        }},
      }};
      clusters.push(cluster);
      return cluster;
    }};
    const kafka = {{
      logger: () => logger,
      admin: () => ({{
        connect: nothing,
        disconnect: nothing,
        fetchTopicOffsets: async () => [{{ partition: 0, low: "0", high: String(log.length) }}],
      }}),
      consumer: (options) =>
        createConsumer({{
          ...options,
          cluster: makeCluster(),
          logger,
          instrumentationEmitter: new InstrumentationEventEmitter(),
        }}),
    }};
    const ended = [];
    const copy = await follow(kafka, "topic", "name", (error) => ended.push(error.message));
    {ANSWERS}
    const print = (found) => {{
      console.log(JSON.stringify(found));
      process.exit(0);  // the last consumer continues
    }};
    await until(() => answer() === "seat_assigned");
"""


def test_a_consumer_that_rejoins_while_kafkajs_makes_new_fetchers_ends() -> None:
    program = f"""{BROKERS}
        const [old] = clusters;
        const changed = Promise.withResolvers();
        const noticed = Promise.withResolvers();
        old.fetch = async (request, nodeId) => {{
          await turn();
          if (nodeId === "1") throw Object.assign(new Error("moved"), {{ type: "NOT_LEADER_FOR_PARTITION" }});
          await changed.promise;
          return empty;
        }};
        old.refreshMetadata = async () => {{
          leaders = ["1", "1"];  // broker 2 is gone
          old.getNodeIds = () => {{
            setImmediate(noticed.resolve);  // once the fetcher of broker 2 has found that its list is another one
            return ["1"];
          }};
          changed.resolve();
        }};
        const {{ joinGroup }} = old.coordinator;
        old.coordinator.joinGroup = async () => {{
          await noticed.promise;
          old.fetch = read;
          return joinGroup();
        }};
        await until(() => answer() === "NotReady");
        await until(() => answer() === "seat_assigned");
        await until(() => !old.connected);
        print([clusters.map(({{ connected }}) => connected), ended]);
    """
    assert in_javascript(program, [AGENCY, PERSON]) == [[False, True], []]


def test_a_log_that_lost_its_end_is_read_into_a_new_copy() -> None:
    program = f"""{BROKERS}
        const [old] = clusters;
        const [agency] = log;
        const found = [];
        old.coordinator.offsetCommit = async () => void (log = [agency, agency, agency, agency]);  // it grew since
        log = [agency];
        await until(() => answer() !== "seat_assigned");
        found.push(answer());
        await until(() => answer() === "no_seat");
        await until(() => !old.connected);
        print([...found, clusters.map(({{ connected }}) => connected), ended]);
    """
    assert in_javascript(program, [AGENCY, PERSON]) == ["NotReady", [False, True], []]
