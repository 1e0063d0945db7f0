// Print every seat fact once, in its agency's order, with kafkajs. Run one instance; a second one is refused.
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import kafkajs from "kafkajs";
import SnappyCodec from "kafkajs-snappy";
import { TOPIC, read } from "./reading.mjs";

const { CompressionCodecs, CompressionTypes, Kafka, KafkaJSNonRetriableError, logLevel } = kafkajs;
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec;

const env = process.env;
const topic = (env.MUSTER_TOPIC_PREFIX ?? "") + TOPIC;
const groupId = env.GROUP ?? "seats-with-kafkajs";
const stateFile = env.STATE ?? `${groupId}.json`;

const kafka = new Kafka({
  brokers: (env.MUSTER_KAFKA_BOOTSTRAP ?? "localhost:9092").split(","),
  clientId: "seat-printer",
  ...security(),
  logLevel: logLevel.WARN,
});
const state = await prepare().catch((error) => stop(error.message));

// TLS and what identifies the subscriber: SASL_SSL is a user and a password, SSL a client certificate.
function security() {
  const protocol = env.MUSTER_KAFKA_SECURITY_PROTOCOL ?? "PLAINTEXT";
  if (protocol === "PLAINTEXT") return {};
  const file = (name) => (env[name] ? readFileSync(env[name], "utf8") : undefined);
  const ssl = {
    ca: file("MUSTER_KAFKA_CA_FILE"),
    cert: file("MUSTER_KAFKA_CERTIFICATE_FILE"),
    key: file("MUSTER_KAFKA_KEY_FILE"),
  };
  if (protocol === "SSL") return { ssl };
  const password = file("MUSTER_KAFKA_PASSWORD_FILE")?.trimEnd() ?? env.MUSTER_KAFKA_PASSWORD;
  if (!password) stop("set MUSTER_KAFKA_PASSWORD_FILE or MUSTER_KAFKA_PASSWORD");
  return { ssl, sasl: { mechanism: "scram-sha-512", username: env.MUSTER_KAFKA_USERNAME, password } };
}

// kafkajs does not expose a topic's ID. So the last record of each partition that was handled is read again, and must be
// the same: in a recreated topic, or in another cluster, there is a different one or none.
async function prepare() {
  const admin = kafka.admin();
  await admin.connect();
  try {
    const log = { group: groupId, cluster: (await admin.describeCluster()).clusterId, topic };
    const { groups } = await admin.describeGroups([groupId]);
    refuseASecond(groups[0].members.length);
    if (!existsSync(stateFile)) return { log, places: {}, last: {} };
    const kept = JSON.parse(readFileSync(stateFile, "utf8"));
    if (JSON.stringify(kept.log) !== JSON.stringify(log)) refuseState(log);
    const ends = await admin.fetchTopicOffsets(topic);
    for (const [partition, { offset }] of Object.entries(kept.last)) {
      const end = ends.find((each) => each.partition === Number(partition));
      if (!end || BigInt(end.high) <= BigInt(offset)) refuseState(log);
    }
    const partitions = Object.entries(kept.last).map(([partition, { offset }]) => ({ partition: Number(partition), offset }));
    if (partitions.length > 0) await admin.setOffsets({ groupId, topic, partitions });
    return kept;
  } finally {
    await admin.disconnect();
  }
}

// Called before this instance joins, so that it does not disturb a running one, and again once it is a member, before it
// handles a record: if two start at once, each sees the other, so they never both continue.
function refuseASecond(others) {
  if (others === 0) return;
  throw new Error(
    `the group ${groupId} has another member, and this example is for one instance. ` +
      "One that was killed leaves the group within a minute: try again then.",
  );
}

function refuseState(log) {
  stop(
    `${stateFile} holds positions of another log, not of ${JSON.stringify(log)}: with it, facts would be silently skipped. ` +
      "Move the file away; then all facts are printed, from the first one.",
  );
}

function stop(reason) {
  console.error(reason);
  process.exit(1);
}

const unseen = new Set(Object.keys(state.last));

function take(partition, message) {
  const fact = read(message);
  const seen = `${fact.id} ${message.timestamp}`;
  if (unseen.delete(String(partition)) && state.last[partition].seen !== seen) refuseState(state.log);
  if (fact.kind === "newer") throw new Error(`${fact.type} has a major version that this program does not know`);

  const { agency, epoch, sequence } = fact;
  const [lastEpoch, last] = state.places[agency] ?? [1, "0"];
  if (epoch < lastEpoch || (epoch === lastEpoch && sequence <= BigInt(last))) {
    return; // delivered again
  }
  if (sequence > BigInt(last) + 1n) {
    throw new Error(`${agency}: events ${BigInt(last) + 1n} to ${sequence - 1n} are missing`);
  }
  if (epoch > lastEpoch && BigInt(last) > 0n) {
    console.error(`${agency}: reconcile what came after epoch ${lastEpoch}, sequence ${last}`);
  }
  // Of a type that this program does not know, only the position counts.
  if (fact.kind === "fact") console.log(JSON.stringify({ id: fact.id, type: fact.type, data: fact.data }));
  state.places[agency] = [epoch, sequence.toString()];
  state.last[partition] = { offset: message.offset, seen };
  writeFileSync(`${stateFile}.new`, JSON.stringify(state));
  renameSync(`${stateFile}.new`, stateFile);
}

const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 500, allowAutoTopicCreation: false });

// A retry cannot fix this error: stop, so that no later commit skips the record.
consumer.on(consumer.events.CRASH, ({ payload }) => stop(payload.error.message));

let alone; // settled once this instance is the only member
consumer.on(consumer.events.GROUP_JOIN, () => (alone ??= requireAlone()));

async function requireAlone() {
  try {
    refuseASecond((await consumer.describeGroup()).members.length - 1);
    console.error(`connected, waiting for facts of ${TOPIC}`);
  } catch (error) {
    // Leave the group at once: the other instance waits for that.
    consumer.disconnect().finally(() => stop(error.message));
    throw error;
  }
}

// Leave the group, so that the next instance can start at once.
process.once("SIGINT", async () => {
  await consumer.disconnect();
  process.exit(0);
});

await consumer.connect();
await consumer.subscribe({ topic, fromBeginning: true });
await consumer.run({
  autoCommit: false,
  eachMessage: async ({ partition, message }) => {
    try {
      await alone;
      take(partition, message);
    } catch (error) {
      throw new KafkaJSNonRetriableError(error.message); // it would be the same at every retry
    }
    await consumer.commitOffsets([{ topic, partition, offset: (BigInt(message.offset) + 1n).toString() }]);
  },
});
