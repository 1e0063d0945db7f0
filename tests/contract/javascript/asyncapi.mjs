// Prints what the official AsyncAPI parser says of a document, as JSON: {messages, channels, diagnostics}.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"));
console.log(
  JSON.stringify({
    channels: document?.channels().all().map((channel) => channel.address()),
    messages: document?.messages().all().map((message) => message.name()),
    diagnostics: diagnostics.map(({ code, message, severity, path }) => ({ code, message, severity, path })),
  }),
);
