// Read one record of the topic of seats as muster-contracts does: it refuses whatever that refuses. Headers are checked
// here, the value by the event's JSON Schema.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import Ajv from "ajv/dist/2020.js";

export const TOPIC = "muster.entitlements.seat";
const SCHEMAS = process.env.SCHEMAS ?? fileURLToPath(new URL("../../schemas", import.meta.url));

const TEXTS = ["ce_id", "ce_source", "ce_type", "ce_partitionkey", "ce_correlationid"];
const OPTIONAL_TEXTS = ["ce_causationid", "ce_traceparent"];
const NUMBERS = { ce_epoch: 2n ** 31n - 1n, ce_sequence: 2n ** 63n - 1n };
const TYPE = /^(muster\.[a-z]{1,40}\.[A-Z][A-Za-z]{1,80})\.v([1-9][0-9]{0,5})$/;

const PRINTABLE = /^(?: |[^\p{C}\p{Z}])+$/u;
const INSTANT =
  /^\d{4}-\d\d-\d\dT([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$/;
const FIRST = Date.parse("0001-01-01T00:00:00Z");
const LAST = Date.parse("9999-12-31T23:59:59Z");

// How deep a value may be, as in muster-contracts.
const DEPTH = 200;

// What checks the data of each type of the topic, and the newest major version that is known of each family.
const checks = new Map();
const majors = new Map();
const ajv = new Ajv({ strict: false, formats: { "date-time": isInstant } });
for (const file of readdirSync(SCHEMAS)) {
  const schema = JSON.parse(readFileSync(join(SCHEMAS, file), "utf8"));
  if (schema["x-topic"] !== TOPIC) continue;
  const [, family, major] = TYPE.exec(file.slice(0, -".json".length));
  checks.set(`${family}.v${major}`, ajv.compile(schema));
  majors.set(family, Math.max(Number(major), majors.get(family) ?? 0));
}

/** The record is no event of Muster's: the message names the header or field and the rule, never the data. */
export class MalformedRecord extends Error {}

/** What a record holds: {kind: "fact" | "unknown" | "newer", agency, epoch, sequence, id, type, data}. */
export function read({ headers, value }) {
  const header = (name) => {
    const given = headers?.[name];
    if (Array.isArray(given)) throw new MalformedRecord(`header ${name} appears ${given.length} times, not once`);
    return given === null || given === undefined ? undefined : utf8(given, `header ${name}`);
  };
  if (header("ce_specversion") !== "1.0") throw new MalformedRecord("header ce_specversion is not 1.0");
  const texts = Object.fromEntries(TEXTS.map((name) => [name, header(name) ?? ""]));
  for (const name of OPTIONAL_TEXTS) texts[name] = header(name);
  for (const [name, text] of Object.entries(texts)) {
    if (text !== undefined && (!PRINTABLE.test(text) || Buffer.byteLength(text) > 256)) {
      throw new MalformedRecord(`header ${name} is missing, or not 1 to 256 bytes of printable UTF-8`);
    }
  }
  const time = header("ce_time") ?? "";
  if (time.length > 40 || !isInstant(time)) {
    throw new MalformedRecord("header ce_time is not an RFC 3339 instant with a time zone");
  }
  const [epoch, sequence] = Object.entries(NUMBERS).map(([name, most]) => {
    const text = header(name) ?? "";
    const number = /^[0-9]{1,20}$/.test(text) ? BigInt(text) : 0n;
    if (number < 1n || number > most) throw new MalformedRecord(`header ${name} is not a whole number from 1 to ${most}`);
    return number;
  });
  const type = texts.ce_type;
  const place = { id: texts.ce_id, type, agency: texts.ce_partitionkey, epoch: Number(epoch), sequence };
  const [, family, major] = TYPE.exec(type) ?? [];
  if (!family && type.startsWith("muster.")) {
    throw new MalformedRecord("header ce_type is not muster.<service>.<Name>.v<major>");
  }
  if (checks.has(type)) return { kind: "fact", ...place, data: dataOf(value, place) };
  return { kind: Number(major) > (majors.get(family) ?? Infinity) ? "newer" : "unknown", ...place };
}

function dataOf(value, { id, type, agency }) {
  const refuse = (rule) => {
    throw new MalformedRecord(`${id} is no ${type}: ${rule}`);
  };
  const text = utf8(value ?? [], "the value");
  let data;
  try {
    data = JSON.parse(text);
  } catch {
    refuse("value: not JSON"); // the parser's own message shows the value
  }
  requireExact(data, refuse, DEPTH);
  const check = checks.get(type);
  if (!check(data)) refuse(`${check.errors[0].instancePath.slice(1) || "value"}: ${check.errors[0].message}`);
  if (data.agency_id !== agency) throw new MalformedRecord(`${id}: agency_id differs from the header ce_partitionkey`);
  return data;
}

/** Refuse what JSON.parse lets pass: half characters, a depth that stops other readers, numbers that it has rounded. */
function requireExact(part, refuse, depth) {
  if (typeof part === "string" && !part.isWellFormed()) refuse("value: a string with a lone surrogate");
  if (typeof part === "number" && Math.abs(part) > Number.MAX_SAFE_INTEGER) refuse("value: a number too large for JavaScript");
  if (typeof part !== "object" || part === null) return;
  if (depth === 0) refuse("value: too deep");
  for (const [name, inner] of Object.entries(part)) {
    requireExact(name, refuse, depth);
    requireExact(inner, refuse, depth - 1);
  }
}

/** Whether a text is an instant, RFC 3339 with a time zone, in the years 1 to 9999 of UTC. */
function isInstant(text) {
  if (!INSTANT.test(text)) return false;
  const local = text.slice(0, "2025-08-06T00:00:00".length);
  const onItsClock = new Date(`${local}Z`);
  const inUtc = Date.parse(text.replace(/\.\d+/, ""));
  // JavaScript takes 30 February for 2 March.
  return !Number.isNaN(+onItsClock) && onItsClock.toISOString().startsWith(local) && inUtc >= FIRST && inUtc <= LAST;
}

function utf8(bytes, what) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(Buffer.from(bytes));
  } catch {
    throw new MalformedRecord(`${what} is not UTF-8`);
  }
}
