// The types of following.mjs.
import type { Kafka } from "kafkajs";
import type { AccessCopy } from "./access.mjs";

/**
 * Begin a copy; returns what gives the current one. `name` is what the operators registered. `failed` is called with
 * what ends the following for good, such as Unreadable: then the copy stays not ready.
 */
export function follow(
  kafka: Kafka,
  topic: string,
  name: string,
  failed?: (error: Error) => void | Promise<void>,
): Promise<() => AccessCopy>;
