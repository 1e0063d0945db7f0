// Follow the snapshot topic with kafkajs: each process holds a copy of the whole topic.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { AccessCopy } from "./access.mjs";

const RETRY_MS = 1_000;

/**
 * Start a copy; returns a function that returns the current one. `name` is the name that the operators registered.
 * `failed` is called with an error that ends this permanently, such as Unreadable; the copy then stays not ready.
 *
 * A consumer serves one join. If it joins its group again, for example after a lost connection, a new consumer reads the
 * topic from its beginning into a new copy: kafkajs may still return what it requested before the join, and would
 * continue behind that, so a copy would never get what it missed of the partition.
 */
export async function follow(kafka, topic, name, failed = () => {}) {
  let copy = new AccessCopy();

  async function begin(fresh) {
    const consumer = kafka.consumer({
      // A group of its own: otherwise it would continue where an earlier copy ended. kafkajs keeps the offsets of each group,
      // about a kilobyte, until the process ends.
      groupId: `${name}.${randomUUID()}`,
      allowAutoTopicCreation: false,
      retry: {
        // kafkajs calls it after a retryable error.
        restartOnFailure: async () => {
          beginAgain(fresh);
          return false;
        },
      },
    });
    const { GROUP_JOIN, FETCH_START, END_BATCH_PROCESS, CRASH } = consumer.events;
    let joined = false;
    consumer.on(GROUP_JOIN, () => {
      if (joined) return beginAgain(fresh);
      joined = true;
      return expectEnds(fresh);
    });
    // An error that a listener throws here ends the consumer. After a disconnect() during a join, kafkajs may loop
    // forever, and nothing else in the process would run.
    consumer.on(FETCH_START, () => {
      if (copy !== fresh) throw Object.assign(new Error("a new consumer takes over"), { retriable: false });
    });
    consumer.on(END_BATCH_PROCESS, ({ payload: { partition, lastOffset } }) => fresh.reached(partition, lastOffset));
    consumer.on(CRASH, ({ payload: { error } }) => end(fresh, error));
    const last = new Map(); // the offset of each partition's last record
    async function eachMessage({ partition, message }) {
      const offset = BigInt(message.offset);
      // If the log has lost its end, for example in a restore, kafkajs rereads it from its beginning: this copy holds more.
      if (offset <= last.get(partition)) beginAgain(fresh);
      last.set(partition, offset);
      fresh.take(message);
    }
    try {
      await consumer.connect();
      await consumer.subscribe({ topic, fromBeginning: true });
      await consumer.run({ autoCommit: false, eachMessage });
    } catch (error) {
      await consumer.disconnect().catch(() => {});
      throw error;
    }
  }

  async function beginAgain(old) {
    if (copy !== old) return; // it already has
    const fresh = (copy = new AccessCopy());
    await sleep(RETRY_MS);
    try {
      await begin(fresh);
    } catch (error) {
      if (origin(error).retriable === false) return end(fresh, error);
      kafka.logger().warn(`cannot follow ${topic}: ${error.message}`);
      beginAgain(fresh);
    }
  }

  async function end(old, error) {
    if (copy !== old) return; // a new one has started
    copy = new AccessCopy(); // nothing fills it
    try {
      await failed(origin(error));
    } catch (thrown) {
      kafka.logger().error(`the failure callback of ${topic} threw: ${thrown}`);
    }
  }

  async function expectEnds(fresh) {
    while (copy === fresh) {
      const admin = kafka.admin(); // a new one learns who leads the partitions now
      try {
        await admin.connect();
        return fresh.expect(await admin.fetchTopicOffsets(topic));
      } catch (error) {
        kafka.logger().warn(`cannot get the ends of ${topic}: ${error.message}`);
        await sleep(RETRY_MS);
      } finally {
        await admin.disconnect().catch(() => {});
      }
    }
  }

  await begin(copy);
  return () => copy;
}

// kafkajs wraps a retryable error in one that says that no retries are left.
function origin(error) {
  return error.cause ? origin(error.cause) : error;
}
