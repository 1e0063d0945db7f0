// A copy of the snapshot topic that answers checks as Muster's own service does: the twin of muster-entitlements-client.
// Both are held to the same cases, contracts/client/golden_checks.json.

const SNAPSHOTS = "muster.entitlements.";
const AGENCY = `${SNAPSHOTS}AgencyAccess.v1`;
const SUBJECT = `${SNAPSHOTS}SubjectAccess.v1`;
const ERASED = `${SNAPSHOTS}SubjectAccessErased.v1`;
// The reason for each mode of a grant. A grant of an unknown mode gives nothing.
const GRANTED = new Map([["unlimited", "granted"], ["quota", "quota"]]);
const SECOND = 1_000_000n;
const DAY = 86_400n * SECOND;
const USABLE = new Set(["assigned", "active"]);
const SUBJECT_REF = /^sub_[0-9a-f]{32}$/;

/** A record that this version cannot read: continuing would leave the copy wrong. */
export class Unreadable extends Error {
  retriable = false; // kafkajs asks: with every retry, it would read the whole topic again
}

/** The copy is not complete yet, or no longer: it must not answer. */
export class NotReady extends Error {}

/** The service's answers had ended when they arrived. */
export class Stale extends Error {}

/** An instant as microseconds since 1970, which a Date cannot hold. */
export function micros(text) {
  const at = parsedInstant(text);
  if (at === null) throw new Unreadable("an instant is not in UTC");
  return at;
}

// The instant that a caller gives, as microseconds.
function given(now) {
  const at = parsedInstant(now);
  if (at === null) throw new RangeError("now must be a text in UTC, such as 2025-08-06T00:00:00Z");
  return at;
}

function parsedInstant(text) {
  const [, seconds, fraction = ""] = /^(.{19})(?:\.(\d{1,6})\d*)?(?:Z|\+00:00)$/.exec(text) ?? [];
  const milliseconds = Date.parse(`${seconds}Z`);
  return Number.isNaN(milliseconds) ? null : BigInt(milliseconds) * 1000n + BigInt(fraction.padEnd(6, "0"));
}

// Microseconds since 1970 as an instant.
function text(at) {
  const fraction = (at % SECOND).toString().padStart(6, "0");
  const seconds = new Date(Number(at / 1000n)).toISOString().slice(0, 19);
  return at % SECOND === 0n ? `${seconds}Z` : `${seconds}.${fraction}Z`;
}

/** The latest record of each agency and person. It answers once it has reached the ends that it expects. */
export class AccessCopy {
  #agencies = new Map();
  #holdings = new Map();
  #ends = null;
  #reached = new Map();
  #filled = false;
  #failed = false;

  /** How many people have a seat of any state. */
  get size() {
    return this.#holdings.size;
  }

  /** The partitions' ends when the copy was started, as kafkajs' admin.fetchTopicOffsets returns them. */
  expect(ends) {
    this.#ends = ends.filter(({ low, high }) => low !== high);
  }

  /** Everything in a partition up to this offset was read. A transaction's marker also has an offset. */
  reached(partition, offset) {
    this.#reached.set(partition, BigInt(offset));
  }

  /** Whether it may answer. A topic without an agency was recreated, and is not filled yet. */
  get ready() {
    const read = ({ partition, high }) => this.#reached.get(partition) >= BigInt(high) - 1n;
    return this.#filled && !this.#failed && this.#ends !== null && this.#ends.every(read);
  }

  /** Apply the topic's next record, as kafkajs returns it. Throws Unreadable; the copy is then no longer ready. */
  take(record) {
    try {
      this.#take(record);
    } catch (error) {
      this.#failed = true;
      if (error instanceof Unreadable) throw error;
      throw new Unreadable("the value of a record does not have the form of its type");
    }
  }

  #take({ headers, key, value }) {
    if (!key?.length) throw new Unreadable("a record of the snapshot topic has no key");
    const type = headers?.ce_type?.toString() ?? "";
    if (type === ERASED && value === null) {
      // Another agency's tombstone says nothing of a person.
      const agency = this.#holdings.get(key.toString())?.agency;
      if (agency?.id === headers.ce_partitionkey?.toString()) this.#forget(key.toString());
    } else if (type === AGENCY || type === SUBJECT) {
      const data = parsed(value);
      if (data.agency_id !== headers.ce_partitionkey?.toString()) {
        throw new Unreadable("agency_id differs from the header ce_partitionkey");
      }
      if (type === AGENCY) this.#takeAgency(data);
      else this.#takeSubject(data, key.toString());
    } else if (/^muster\.entitlements\.(AgencyAccess|SubjectAccess|SubjectAccessErased)\./.test(type)) {
      throw new Unreadable(`this copy does not know the version of ${type}`);
    }
  }

  /**
   * Whether a person may use a feature at an instant (a text, RFC 3339 in UTC); without a feature (null), whether they
   * have a usable seat. Without the agency, a person without a seat gets the answer no_seat, whatever their agency's state.
   * Throws NotReady, and RangeError for a subject that is not a reference and for an instant in another form.
   */
  check(subject, feature, now, agencyId = null) {
    if (!SUBJECT_REF.test(subject)) {
      throw new RangeError("subject must be sub_ and 32 hexadecimal digits: a copy knows references only");
    }
    const at = given(now);
    if (!this.ready) throw new NotReady("the copy is not complete");
    const holding = this.#holdings.get(subject);
    const own = holding && (agencyId === null || holding.agency.id === agencyId) ? holding : null;
    if (own === null && agencyId === null) return answer("refused", "no_seat");
    const agency = own?.agency ?? this.#agencies.get(agencyId);
    if (!agency) return answer("refused", "unknown");
    if (!agency.terms) throw new NotReady(`the record of ${agency.id} has not arrived yet`);
    const seat = own?.generation === agency.terms.generation ? own.seat : null;
    const [mine, ours] = [own ?? {}, agency.terms].map(({ uses = [], further = [] }) => ({
      uses: uses.filter((each) => each.feature === feature),
      further: further.filter((each) => each.feature === feature),
    }));
    // A person's own grants precede their agency's.
    const grants = [...(own?.grants ?? []), ...agency.terms.grants].filter((grant) => grant.feature === feature);
    return decide(agency, seat, feature, grants, own?.began ?? null, { mine, ours }, at);
  }

  /**
   * Like check, but calls `ask` for what the copy cannot answer or may not have yet. `ask` gets the agency, the subject,
   * and the feature, and is called again if its answer ended before it arrived. Throws NotReady if there is no agency to
   * ask about, Stale if the second answer has ended, too, and whatever `ask` throws.
   */
  async checkOrAsk(ask, subject, feature, now, agencyId = null) {
    const asked = performance.now();
    const agency = agencyId ?? this.#holdings.get(subject)?.agency.id;
    try {
      const found = this.check(subject, feature, now, agencyId);
      if (agencyId === null || !this.#mayLack(found, agencyId)) return found;
    } catch (error) {
      if (!(error instanceof NotReady) || agency === undefined) throw error;
    }
    for (const _ of [1, 2]) {
      const found = await ask(agency, subject, feature);
      const passed = BigInt(Math.ceil((performance.now() - asked) * 1000));
      if (found.verdict !== "allowed" || !found.valid_until || given(now) + passed < micros(found.valid_until)) return found;
    }
    throw new Stale("the service's answers had ended when they arrived");
  }

  // The agency never enrolled, or has no people; or the rebuild of the topic has not published them yet.
  #mayLack({ reason }, agencyId) {
    return reason === "unknown" || (reason === "no_seat" && this.#agencies.get(agencyId).people === 0);
  }

  #takeAgency(data) {
    const agency = this.#agency(data.agency_id);
    const features = data.features.map(({ feature, phases, quota, seat_days: days }) => [
      feature,
      {
        quota,
        phases: phases.map((phase) => ({ ...phase, at: micros(phase.starts_at) })),
        trial: days ? BigInt(days) * DAY : null,
      },
    ]);
    agency.terms = {
      ...data,
      starts: micros(data.starts_at),
      ends: micros(data.ends_at),
      features: new Map(features),
      grants: granted(data),
      uses: used(data),
      further: further(data),
    };
    agency.revision = Math.max(agency.revision, data.revision);
    this.#filled = true;
  }

  #takeSubject(data, key) {
    if (data.subject_ref !== key) throw new Unreadable("subject_ref differs from the record's key");
    const agency = this.#agency(data.agency_id);
    agency.revision = Math.max(agency.revision, data.revision);
    const began = data.trial_began_at ? micros(data.trial_began_at) : null;
    const own = { grants: granted(data), uses: used(data), further: further(data), began };
    this.#forget(key);
    this.#holdings.set(key, { agency, generation: data.generation, seat: data.seat, ...own });
    agency.people += 1;
  }

  #forget(key) {
    const holding = this.#holdings.get(key);
    if (holding) holding.agency.people -= 1;
    this.#holdings.delete(key);
  }

  #agency(id) {
    if (!this.#agencies.has(id)) this.#agencies.set(id, { id, revision: 0, people: 0, terms: null });
    return this.#agencies.get(id);
  }
}

function parsed(value) {
  try {
    return JSON.parse(value.toString());
  } catch {
    throw new Unreadable("the value of a record is not JSON"); // the parser's own message shows it
  }
}

function granted({ grants = [] }) {
  return grants.map((grant) => ({ ...grant, from: micros(grant.starts_at), to: grant.ends_at ? micros(grant.ends_at) : null }));
}

function used({ quotas = [] }) {
  return quotas.map((use) => ({ ...use, from: micros(use.period_starts_at), to: micros(use.period_ends_at) }));
}

function further({ further_uses = [] }) {
  return further_uses.map((uses) => ({ ...uses, from: micros(uses.starts_at), to: uses.ends_at ? micros(uses.ends_at) : null }));
}

function answer(verdict, reason, validUntil = null, revision = 0, quota = null, known = {}) {
  const nothing = { limit: null, used: null, resets_at: null };
  return { verdict, reason, valid_until: validUntil, revision, monthly_quota: quota, ...nothing, ...known };
}

// The first rule that applies, in the service's order.
function decide({ terms, revision }, seat, feature, grants, began, { mine, ours }, now) {
  const phases = feature === null ? undefined : phasesOf(terms.features.get(feature), began);
  const withdrawn = (terms.withdrawn_at ?? null) !== null;
  const until = withdrawn || terms.ended ? null : nextChange(terms, phases ?? [], grants, now);
  const refuse = (reason) => answer("refused", reason, until, revision);
  if (withdrawn) return refuse("withdrawn");
  if (terms.ended || now >= terms.ends) return refuse("ended");
  if (terms.suspended) return refuse("suspended");
  if (now < terms.starts) return refuse("not_started");
  if (seat === null) return refuse("no_seat");
  if (!USABLE.has(seat)) return refuse(`seat_${seat}`);
  if (feature === null) return answer("allowed", `seat_${seat}`, until, revision);
  const grant = grants.find(({ mode, from, to }) => GRANTED.has(mode) && from <= now && (to === null || now < to));
  // The known use of a quota is as of the last threshold that the person, or the agency whose quota it is, crossed. An
  // answer that depends on further uses is valid until one of them begins or ends.
  const within = (monthly, quota) => {
    const shared = quota?.per === "agency";
    const further = shared ? ours.further : [...mine.further, ...ours.further];
    const use = (shared ? ours : mine).uses.find(({ from, to }) => from <= now && now < to);
    if (!quota) return answer("allowed", "quota", until, revision, monthly ?? null);
    const known = { limit: quota.limit, used: use?.used ?? null, resets_at: use?.period_ends_at ?? null };
    const more = further.some(({ from, to }) => from <= now && (to === null || now < to));
    if (!quota.enforced || (use?.charged ?? 0) < quota.limit) {
      return answer("allowed", "quota", until, revision, monthly ?? null, known);
    }
    const turns = further.flatMap(({ from, starts_at, to, ends_at }) => [[from, starts_at], [to, ends_at]]);
    const end = first([until === null ? [null] : [micros(until), until], ...turns], now);
    if (more) return answer("allowed", "quota", end, revision, monthly ?? null, known);
    const reset = use ? [[use.to, use.period_ends_at]] : [];
    const last = first([end === null ? [null] : [micros(end), end], ...reset], now);
    return answer("refused", "quota_used_up", last, revision, monthly ?? null, known);
  };
  if (grant?.mode === "quota") {
    const limit = grant.monthly_quota ?? null;
    return within(limit, limit === null ? null : { limit, enforced: true });
  }
  if (grant) return answer("allowed", GRANTED.get(grant.mode), until, revision);
  if (phases === undefined) return refuse("no_window");
  const phase = phases.findLast(({ at }) => at <= now);
  if (phase?.mode === "unlimited") return answer("allowed", "window_open", until, revision);
  if (phase?.mode === "quota") return within(phase.monthly_quota, terms.features.get(feature).quota);
  return refuse("window_closed"); // a mode that is not known allows nothing
}

// The phases of a feature. If each seat has its own trial, the last phase also begins when the seat's trial ends.
function phasesOf(timeline, began) {
  if (!timeline?.phases.length || timeline.trial === null || began === null) return timeline?.phases;
  const [first, last] = [timeline.phases[0], timeline.phases.at(-1)];
  const end = began + timeline.trial;
  const { at, starts_at } = end > last.at ? last : end < first.at ? first : { at: end, starts_at: text(end) };
  return [...timeline.phases.slice(0, -1), { ...last, at, starts_at }, last];
}

// The next instant at which the answer may change by itself.
function nextChange(terms, phases, grants, now) {
  const instants = [
    [terms.starts, terms.starts_at],
    [terms.ends, terms.ends_at],
    ...phases.map(({ at, starts_at }) => [at, starts_at]),
    ...grants.flatMap(({ from, starts_at, to, ends_at }) => [[from, starts_at], [to, ends_at]]),
  ];
  return first(instants, now);
}

// The first of these instants after now; null if there is none.
function first(instants, now) {
  const later = instants.filter(([at]) => at !== null && at > now);
  return later.length === 0 ? null : later.reduce((earliest, next) => (next[0] < earliest[0] ? next : earliest))[1];
}
