// The types of following.mjs.
import type { Kafka } from "kafkajs";
import type { AccessCopy } from "./access.mjs";

/**
 * Start a copy; returns a function that returns the current one. `name` is the name that the operators registered.
 * `failed` is called with an error that ends this permanently, such as Unreadable; the copy then stays not ready.
 */
export function follow(
  kafka: Kafka,
  topic: string,
  name: string,
  failed?: (error: Error) => void | Promise<void>,
): Promise<() => AccessCopy>;
