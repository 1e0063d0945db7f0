// Reads raw Kafka records with the official CloudEvents SDK, and prints what it makes of them, as JSON.
import { readFileSync } from "node:fs";
import { Kafka } from "cloudevents";

const events = process.argv.slice(2).map((path) => {
  const { key, headers, value } = JSON.parse(readFileSync(path, "utf8"));
  const event = Kafka.toEvent({ key, headers: Object.fromEntries(headers), value });
  event.validate();
  return event.toJSON();
});
console.log(JSON.stringify(events));
