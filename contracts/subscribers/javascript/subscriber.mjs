// Print every seat fact once, in its agency's order, with kafkajs and the official CloudEvents SDK.
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { Kafka as CloudEvents } from "cloudevents";
import kafkajs from "kafkajs";
import SnappyCodec from "kafkajs-snappy";

const { CompressionCodecs, CompressionTypes, Kafka, KafkaJSNonRetriableError, logLevel } = kafkajs;
CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec;

const env = process.env;
const topic = (env.MUSTER_TOPIC_PREFIX ?? "") + "muster.entitlements.seat";
const stateFile = env.STATE ?? "positions.json";

// The last event of each agency's stream that was handled: {agency: [epoch, sequence]}.
const places = existsSync(stateFile) ? JSON.parse(readFileSync(stateFile, "utf8")) : {};

function take(message) {
  const headers = Object.fromEntries(
    Object.entries(message.headers).map(([name, value]) => [name, value.toString()]),
  );
  const event = CloudEvents.toEvent({ headers, key: message.key?.toString(), value: message.value?.toString() });
  const agency = event.partitionkey;
  const [epoch, sequence] = [Number(event.epoch), BigInt(event.sequence)];
  const [lastEpoch, last] = places[agency] ?? [1, "0"];

  if (epoch < lastEpoch || (epoch === lastEpoch && sequence <= BigInt(last))) {
    return; // delivered again
  }
  if (sequence > BigInt(last) + 1n) {
    throw new KafkaJSNonRetriableError(`${agency}: events ${BigInt(last) + 1n} to ${sequence - 1n} are missing`);
  }
  if (epoch > lastEpoch && BigInt(last) > 0n) {
    console.error(`${agency}: reconcile what came after epoch ${lastEpoch}, sequence ${last}`);
  }
  if (event.type.endsWith(".v1")) {
    console.log(JSON.stringify({ id: event.id, type: event.type, data: event.data }));
  } else {
    throw new KafkaJSNonRetriableError(`${event.type} is of a major version that is not known here`);
  }
  places[agency] = [epoch, sequence.toString()];
  writeFileSync(`${stateFile}.new`, JSON.stringify(places));
  renameSync(`${stateFile}.new`, stateFile);
}

const consumer = new Kafka({
  brokers: [env.MUSTER_KAFKA_BOOTSTRAP ?? "localhost:9092"],
  clientId: "seat-printer",
  logLevel: logLevel.WARN,
}).consumer({ groupId: env.GROUP ?? "seat-printer", maxWaitTimeInMs: 500 });

// An error that a retry does not mend, such as those above: stop, so that no later commit goes past the record.
consumer.on(consumer.events.CRASH, ({ payload }) => {
  console.error(payload.error.message);
  process.exit(1);
});

// Leave the group, so that another instance takes over at once.
process.once("SIGINT", async () => {
  await consumer.disconnect();
  process.exit(0);
});

await consumer.connect();
await consumer.subscribe({ topic, fromBeginning: true });
await consumer.run({
  autoCommit: false,
  eachMessage: async ({ partition, message }) => {
    take(message);
    await consumer.commitOffsets([{ topic, partition, offset: (BigInt(message.offset) + 1n).toString() }]);
  },
});
