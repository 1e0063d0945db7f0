// Keep the latest value of each agency and key of a compacted topic, with the official CloudEvents SDK.
//
// A record without a value is a tombstone: what was known under its key is erased. The SDK refuses it ("Value is null or
// undefined"), and a subscriber that stops there keeps what it must forget. So the value is looked at first. A tombstone
// erases what is its own agency's alone.
import { Kafka as CloudEvents } from "cloudevents";

/** Put a record's data in the place of what was known of its agency and key, or forget it at a tombstone. */
export function keep(latest, { headers, key, value }) {
  const place = `${headers.ce_partitionkey} ${key}`;
  if (value === null) {
    latest.delete(place);
    return;
  }
  const text = Object.fromEntries(Object.entries(headers).map(([name, bytes]) => [name, bytes.toString()]));
  latest.set(place, CloudEvents.toEvent({ headers: text, key: key.toString(), value: value.toString() }).data);
}
