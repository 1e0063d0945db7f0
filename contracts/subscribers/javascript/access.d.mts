// The types of access.mjs. `Buffer` is from @types/node.
/// <reference types="node" />

type Header = Buffer | string;

/** A record of the snapshot topic, as kafkajs returns it. */
export interface SnapshotRecord {
  readonly headers?: Readonly<Record<string, Header | Header[] | undefined>>;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
}

/** The offsets of a partition, as kafkajs' admin.fetchTopicOffsets returns them. */
export interface PartitionEnds {
  readonly partition: number;
  readonly low: string;
  readonly high: string;
}

/** The first rule that applies. For a seat in another state, it is `seat_` and the state's name. */
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
  /** Until when it is valid, unless the agency's revision increases first; null: no end is known. */
  readonly valid_until: string | null;
  readonly revision: number;
  readonly monthly_quota: number | null;
  /** The quota; null if none limits the feature. */
  readonly limit: number | null;
  /** As of the last threshold; null if none was crossed. */
  readonly used: number | null;
  readonly resets_at: string | null;
}

/** A record that this version cannot read: continuing would leave the copy wrong. */
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

  /** The partitions' ends when the copy was started. */
  expect(ends: readonly PartitionEnds[]): void;

  /** Everything in a partition up to this offset was read. */
  reached(partition: number, offset: string | number | bigint): void;

  /** Apply the topic's next record. Throws Unreadable; the copy is then no longer ready. */
  take(record: SnapshotRecord): void;

  /**
   * Whether a person may use a feature at an instant (a text, RFC 3339 in UTC); without a feature (null), whether they
   * have a usable seat. Throws NotReady; RangeError for a subject that is not a reference, such as an e-mail address,
   * and for an instant in another form.
   */
  check(subject: string, feature: string | null, now: string, agencyId?: string | null): Answer;

  /**
   * Like check, but calls `ask` for what the copy cannot answer or may not have yet. Throws NotReady if there is no agency
   * to ask about; Stale if two answers in a row had ended when they arrived; and whatever `ask` throws.
   */
  checkOrAsk<T = Answer>(
    ask: (agencyId: string, subject: string, feature: string | null) => T | Promise<T>,
    subject: string,
    feature: string | null,
    now: string,
    agencyId?: string | null,
  ): Promise<Answer | T>;
}
