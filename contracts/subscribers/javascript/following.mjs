// Follow the snapshot topic with kafkajs: each process holds a copy of the whole topic.
import { randomUUID } from "node:crypto";
import { AccessCopy } from "./access.mjs";

/**
 * Begin a copy; returns what gives the present one. Whenever the process joins its group, such as after a lost
 * connection, it reads the topic again from its beginning, into a new copy. `name` is what the operators registered.
 */
export async function follow(kafka, topic, name) {
  const admin = kafka.admin();
  // A group of its own, in which nothing is committed: otherwise it would go on where an earlier copy ended.
  const consumer = kafka.consumer({ groupId: `${name}.${randomUUID()}` });
  const { GROUP_JOIN, END_BATCH_PROCESS, CRASH } = consumer.events;
  let copy = new AccessCopy();
  consumer.on(GROUP_JOIN, async () => {
    const fresh = (copy = new AccessCopy());
    fresh.expect(await admin.fetchTopicOffsets(topic));
  });
  consumer.on(END_BATCH_PROCESS, ({ payload: { partition, lastOffset } }) => copy.reached(partition, lastOffset));
  consumer.on(CRASH, () => (copy = new AccessCopy())); // nobody follows for it, perhaps for long
  await Promise.all([admin.connect(), consumer.connect()]);
  await consumer.subscribe({ topic, fromBeginning: true });
  await consumer.run({ autoCommit: false, eachMessage: async ({ message }) => copy.take(message) });
  return () => copy;
}
