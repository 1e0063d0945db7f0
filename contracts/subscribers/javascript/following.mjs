// Follow the snapshot topic with kafkajs: each process holds a copy of the whole topic.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { AccessCopy } from "./access.mjs";

const RETRY_MS = 1_000;

/**
 * Begin a copy; returns what gives the current one. `name` is what the operators registered. `failed` is called with
 * what ends the following for good, such as Unreadable: then the copy stays not ready.
 *
 * A consumer serves one join. If it joins its group again, such as after a lost connection, a new consumer reads the
 * topic from its beginning, into a new copy. For kafkajs may still bring what it asked for before the join, and would
 * continue after that: what a new copy missed of the partition, it would never get.
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
        // kafkajs calls it if another try may help.
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
    // What a listener throws here ends the consumer. After a disconnect() while it joins, kafkajs may loop forever, and
    // nothing else in the process would run.
    consumer.on(FETCH_START, () => {
      if (copy !== fresh) throw Object.assign(new Error("a new consumer takes over"), { retriable: false });
    });
    consumer.on(END_BATCH_PROCESS, ({ payload: { partition, lastOffset } }) => fresh.reached(partition, lastOffset));
    consumer.on(CRASH, ({ payload: { error } }) => end(fresh, error));
    const last = new Map(); // the offset of each partition's last record
    async function eachMessage({ partition, message }) {
      const offset = BigInt(message.offset);
      // kafkajs reads a log that lost its end, such as a restored one, again from its beginning: this copy holds more.
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
    if (copy !== old) return; // it does already
    const fresh = (copy = new AccessCopy());
    await sleep(RETRY_MS);
    try {
      await begin(fresh);
    } catch (error) {
      if (origin(error).retriable === false) return end(fresh, error);
      kafka.logger().warn(`${topic} cannot be followed: ${error.message}`);
      beginAgain(fresh);
    }
  }

  async function end(old, error) {
    if (copy !== old) return; // it begins again
    copy = new AccessCopy(); // nobody follows for it
    try {
      await failed(origin(error));
    } catch (thrown) {
      kafka.logger().error(`what is called once ${topic} cannot be followed failed: ${thrown}`);
    }
  }

  async function expectEnds(fresh) {
    while (copy === fresh) {
      const admin = kafka.admin(); // a new one learns who leads the partitions now
      try {
        await admin.connect();
        return fresh.expect(await admin.fetchTopicOffsets(topic));
      } catch (error) {
        kafka.logger().warn(`the ends of ${topic} cannot be asked for: ${error.message}`);
        await sleep(RETRY_MS);
      } finally {
        await admin.disconnect().catch(() => {});
      }
    }
  }

  await begin(copy);
  return () => copy;
}

// kafkajs wraps an error that another try may help in one that says that no more tries are left.
function origin(error) {
  return error.cause ? origin(error.cause) : error;
}
