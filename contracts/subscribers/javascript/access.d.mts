// The types of access.mjs. `Buffer` is from @types/node.
/// <reference types="node" />

type Header = Buffer | string;

/** A record of the snapshot topic, as kafkajs brings it. */
export interface SnapshotRecord {
  readonly headers?: Readonly<Record<string, Header | Header[] | undefined>>;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
}

/** The offsets of a partition, as kafkajs' admin.fetchTopicOffsets tells them. */
export interface PartitionEnds {
  readonly partition: number;
  readonly low: string;
  readonly high: string;
}

/** The first rule that applies. A seat in a state that is not known here has that state's name after `seat_`. */
export type Reason =
  | "unknown"
  | "withdrawn"
  | "ended"
  | "suspended"
  | "not_started"
  | "no_seat"
  | `seat_${string}`
  | "granted"
  | "window_open"
  | "quota"
  | "quota_used_up"
  | "window_closed"
  | "no_window";

/** The answer to a check. Instants are texts, RFC 3339 in UTC. */
export interface Answer {
  readonly verdict: "allowed" | "refused";
  readonly reason: Reason;
  /** Until when it holds, unless the agency's revision increases before; null: nothing is known to change it. */
  readonly valid_until: string | null;
  readonly revision: number;
  readonly monthly_quota: number | null;
  /** The quota; null if none limits the feature. */
  readonly limit: number | null;
  /** As of the last threshold; null if none was crossed. */
  readonly used: number | null;
  readonly resets_at: string | null;
}

/** A record that this version cannot read: going on would leave the copy wrong. */
export class Unreadable extends Error {
  retriable: boolean;
}

/** The copy is not complete yet, or no longer: it must not answer. */
export class NotReady extends Error {}

/** The service's answers had ended when they arrived. */
export class Stale extends Error {}

/** An instant as microseconds since 1970, which a Date cannot hold. Throws Unreadable. */
export function micros(text: string): bigint;

/** The latest record of each agency and person. It answers once it has reached the ends that it expects. */
export class AccessCopy {
  /** How many people have a seat of any state. */
  get size(): number;

  /** Whether it may answer. A topic without an agency was recreated, and is not filled yet. */
  get ready(): boolean;

  /** The ends of the partitions when the copy was begun. */
  expect(ends: readonly PartitionEnds[]): void;

  /** What a partition holds up to this offset was read. */
  reached(partition: number, offset: string | number | bigint): void;

  /** Take the next record of the topic. Throws Unreadable, and then is no longer ready. */
  take(record: SnapshotRecord): void;

  /**
   * Whether a person may use a feature at an instant (a text, RFC 3339 in UTC); without a feature (null), whether they
   * have a usable seat. Throws NotReady; RangeError for a subject that is not a reference, such as an e-mail address,
   * and for an instant in another form.
   */
  check(subject: string, feature: string | null, now: string, agencyId?: string | null): Answer;

  /**
   * As check; what the copy cannot answer, or may not have yet, `ask` answers. Throws NotReady where no agency is known to
   * ask for; Stale if two answers of `ask` in a row had ended when they arrived; and what `ask` throws.
   */
  checkOrAsk<T = Answer>(
    ask: (agencyId: string, subject: string, feature: string | null) => T | Promise<T>,
    subject: string,
    feature: string | null,
    now: string,
    agencyId?: string | null,
  ): Promise<Answer | T>;
}
