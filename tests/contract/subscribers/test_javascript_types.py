"""The types of the JavaScript copy name what its code exports, with the same parameters."""

import json
import subprocess
from typing import Any

import pytest

from muster_local.node import NODE
from tests.contract.subscribers.examples import EXAMPLES

# Both sides in one form: for each export and public member, its kind or its parameters; `?` ends an optional one.
COMPARED = """
    import { readFileSync } from "node:fs";
    import { stripTypeScriptTypes } from "node:module";
    const [name] = process.argv.slice(1);

    // The parameters in the parentheses that open at `start`.
    const parameters = (source, start) => {
      const parts = [""];
      let depth = 0;
      for (let at = start + 1; depth > 0 || source[at] !== ")"; at += 1) {
        const next = source[at];
        if ("([{".includes(next) || (next === "<")) depth += 1;
        if (")]}".includes(next) || (next === ">" && source[at - 1] !== "=")) depth -= 1;
        if (next === "," && depth === 0) parts.push("");
        else parts[parts.length - 1] += next;
      }
      return parts
        .map((part) => /^\\s*(\\w+)\\s*(\\?|=)?/.exec(part))
        .filter((found) => found !== null)
        .map(([, word, optional]) => word + (optional ? "?" : ""));
    };
    const ofFunction = (code) => parameters(String(code), String(code).indexOf("("));

    const exported = {};
    for (const [word, value] of Object.entries(await import(`./${name}.mjs`))) {
      if (!String(value).startsWith("class ")) {
        exported[word] = ofFunction(value);
        continue;
      }
      exported[word] = "class";
      for (const field of Object.keys(new value())) exported[`${word}.${field}`] = "field";
      const members = Object.getOwnPropertyDescriptors(value.prototype);
      for (const [member, { value: method, get }] of Object.entries(members)) {
        if (member !== "constructor") exported[`${word}.${member}`] = get ? "getter" : ofFunction(method);
      }
    }

    const types = readFileSync(`${name}.d.mts`, "utf8");
    stripTypeScriptTypes(types);  // throws a SyntaxError
    const declared = {};
    for (const found of types.matchAll(/^export (class|function) (\\w+)/gm)) {
      const [, kind, word] = found;
      const rest = types.slice(found.index);
      if (kind === "function") {
        declared[word] = parameters(rest, rest.indexOf("("));
        continue;
      }
      declared[word] = "class";
      const body = rest.slice(0, /\\}$/m.exec(rest).index);
      for (const member of body.matchAll(/^  (get )?(\\w+)(?:<.*>)?(\\(|:)/gm)) {
        const [all, getter, called, next] = member;
        const kindOfMember = getter ? "getter" : next === ":" ? "field" : null;
        declared[`${word}.${called}`] = kindOfMember ?? parameters(body, member.index + all.length - 1);
      }
    }
    console.log(JSON.stringify({ exported, declared }));
"""


@pytest.mark.parametrize(("name", "some"), [("access", "AccessCopy.checkOrAsk"), ("following", "follow")])
def test_a_modules_types_match_its_code(name: str, some: str) -> None:
    done = subprocess.run(
        [str(NODE), "--no-warnings", "--input-type=module", "--eval", COMPARED, name],
        cwd=EXAMPLES / "javascript",
        check=True,
        stdout=subprocess.PIPE,
        timeout=60,
    )
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    assert found["declared"] == found["exported"]
    assert some in found["exported"]
