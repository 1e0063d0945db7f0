// Keep the latest value of each key of a compacted topic, with the official CloudEvents SDK.
//
// A record without a value is a tombstone: erase what is known under its key. The SDK refuses it ("Value is null or
// undefined"), and a subscriber that stops there keeps what it must erase. So check the value first. A tombstone erases
// nothing of another agency. Kafka keeps one record per key, whatever its agency is, and so does this copy.
import { Kafka as CloudEvents } from "cloudevents";

/** Keep a record's agency and data under its key, or erase them at a tombstone of the same agency. */
export function keep(latest, { headers, key, value }) {
  const agency = headers.ce_partitionkey.toString();
  const name = key.toString();
  if (value !== null) {
    const text = Object.fromEntries(Object.entries(headers).map(([header, bytes]) => [header, bytes.toString()]));
    latest.set(name, { agency, data: CloudEvents.toEvent({ headers: text, key: name, value: value.toString() }).data });
  } else if (latest.get(name)?.agency === agency) {
    latest.delete(name);
  }
}
