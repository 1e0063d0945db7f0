// Read one record as muster-contracts does: the same records are refused. The official CloudEvents SDK reads the data;
// what it lets pass, or breaks on, is looked at first.
import { Kafka as CloudEvents } from "cloudevents";

const TEXTS = ["ce_id", "ce_source", "ce_type", "ce_time", "ce_partitionkey", "ce_correlationid"];
const INSTANT = /^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?([Zz]|[+-]\d{2}:?\d{2})$/;
const NUMBERS = { ce_epoch: 2n ** 31n - 1n, ce_sequence: 2n ** 63n - 1n };
const TYPE = /^(muster\.[a-z]{1,40}\.[A-Z][A-Za-z]{1,80})\.v([1-9][0-9]{0,5})$/;

// The types of the topic that this program knows, all of major version 1.
const KNOWN = new Set(
  ["Reserved", "Invited", "InvitationExpired", "Assigned", "Activated", "Suspended", "Reinstated", "IdleWarned", "Revoked"]
    .concat(["Transferred", "LimitReached", "PoolResized", "BatchCompleted"])
    .map((name) => `muster.entitlements.Seat${name}`),
);

/** The record is no event of Muster's: the message names the header or field and the rule. */
export class MalformedRecord extends Error {}

/** What a record holds: {kind: "fact" | "unknown" | "newer", agency, epoch, sequence, id, type, data}. */
export function read({ headers, key, value }) {
  const text = {};
  for (const [name, given] of Object.entries(headers ?? {})) {
    if (Array.isArray(given) && name.startsWith("ce_")) throw new MalformedRecord(`header ${name} is given twice`);
    if (given === null || given === undefined) continue;
    text[name] = utf8(given, `header ${name}`);
  }
  if (text.ce_specversion !== "1.0") throw new MalformedRecord("header ce_specversion is not 1.0");
  for (const name of TEXTS) {
    if (!text[name] || Buffer.byteLength(text[name]) > 256) throw new MalformedRecord(`header ${name} is missing or too long`);
    if (/\p{C}/u.test(text[name])) throw new MalformedRecord(`header ${name} is not printable`);
  }
  if (!INSTANT.test(text.ce_time) || Number.isNaN(Date.parse(text.ce_time))) {
    throw new MalformedRecord("header ce_time is not an RFC 3339 instant with a time zone");
  }
  for (const [name, most] of Object.entries(NUMBERS)) {
    const number = /^[0-9]{1,20}$/.test(text[name] ?? "") ? BigInt(text[name]) : 0n;
    if (number < 1n || number > most) throw new MalformedRecord(`header ${name} is not a whole number from 1 to ${most}`);
  }
  const place = {
    id: text.ce_id,
    type: text.ce_type,
    agency: text.ce_partitionkey,
    epoch: Number(text.ce_epoch),
    sequence: BigInt(text.ce_sequence),
  };
  const [, family, major] = TYPE.exec(text.ce_type) ?? [];
  if (!family && text.ce_type.startsWith("muster.")) {
    throw new MalformedRecord("header ce_type is not muster.<service>.<Name>.v<major>");
  }
  if (!KNOWN.has(family)) return { kind: "unknown", ...place };
  if (major !== "1") return { kind: "newer", ...place };
  return { kind: "fact", ...place, data: dataOf(text, key, value, place) };
}

function dataOf(headers, key, value, { id, type, agency }) {
  // The SDK throws at a missing value, and on this topic there is no tombstone.
  if (value === null || value === undefined || value.length === 0) throw new MalformedRecord(`${id} is no ${type}: no value`);
  let data;
  try {
    data = CloudEvents.toEvent({ headers, key: key?.toString(), value: utf8(value, "the value") }).data;
    if (typeof data === "string") data = JSON.parse(data);
  } catch (error) {
    throw new MalformedRecord(`${id} is no ${type}: ${error.message.slice(0, 100)}`);
  }
  if (data?.agency_id !== agency) throw new MalformedRecord(`${id}: agency_id is not the header ce_partitionkey`);
  return data;
}

function utf8(bytes, what) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.from(bytes));
  } catch {
    throw new MalformedRecord(`${what} is not UTF-8`);
  }
}
