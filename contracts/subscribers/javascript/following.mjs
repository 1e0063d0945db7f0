// Follow the snapshot topic with kafkajs: each process holds a copy of the whole topic.
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { AccessCopy } from "./access.mjs";

const RETRY_MS = 1_000;

/**
 * Begin a copy; returns what gives the present one. `name` is what the operators registered. `failed` is called with
 * what ends the following for good, such as Unreadable: then the copy stays not ready.
 *
 * A consumer serves one join. If it joins its group again, such as after a lost connection, a new consumer reads the
 * topic from its beginning, into a new copy. For kafkajs may still bring what it asked for before the join, and would
 * go on after that: what a new copy missed of the partition, it would never get.
 */
export async function follow(kafka, topic, name, failed = () => {}) {
  let copy;

  async function begin() {
    const fresh = (copy = new AccessCopy());
    const consumer = kafka.consumer({
      // A group of its own, in which nothing is committed: otherwise it would go on where an earlier copy ended.
      groupId: `${name}.${randomUUID()}`,
      retry: {
        // kafkajs calls it if another try may help.
        restartOnFailure: async () => {
          beginAgain(fresh);
          return false;
        },
      },
    });
    const { GROUP_JOIN, END_BATCH_PROCESS, CRASH } = consumer.events;
    let joined = false;
    consumer.on(GROUP_JOIN, () => {
      if (!joined) {
        joined = true;
        return expectEnds(fresh);
      }
      beginAgain(fresh);
      return consumer.disconnect();
    });
    consumer.on(END_BATCH_PROCESS, ({ payload: { partition, lastOffset } }) => fresh.reached(partition, lastOffset));
    consumer.on(CRASH, ({ payload: { error } }) => {
      if (copy !== fresh) return; // it begins again
      copy = new AccessCopy(); // nobody follows for it
      failed(error.cause ?? error);
    });
    try {
      await consumer.connect();
      await consumer.subscribe({ topic, fromBeginning: true });
      await consumer.run({ autoCommit: false, eachMessage: async ({ message }) => fresh.take(message) });
    } catch (error) {
      await consumer.disconnect().catch(() => {});
      throw error;
    }
  }

  async function beginAgain(old) {
    if (copy !== old) return; // it does already
    copy = new AccessCopy();
    for (let begun = false; !begun; ) {
      await sleep(RETRY_MS);
      begun = await begin().then(() => true, () => false);
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

  await begin();
  return () => copy;
}
