"""`muster catalog`: shows the feature catalog, and plans and applies another one from a file."""

import asyncio
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import tomlkit
import typer
from rich.console import Group
from rich.markup import escape
from rich.text import Text

from muster_operator.failures import BadInput, NotFound
from muster_operator.group import group
from muster_operator.options import STATED_BELOW_USE
from muster_operator.output import Answer, table
from muster_operator.proposals import CATALOG_PUBLICATION, waiting
from muster_operator.service import Service
from muster_operator.target import Target, on_target
from muster_runtime.text import count

app = group("Show, plan, and apply the feature catalog.")

_SERVICE = "entitlements"


class Rule(StrEnum):
    """When agencies that are already enrolled get a version."""

    NOW = "now"
    NEXT_TERM = "next-term"
    NEW_AGENCIES = "new-agencies"


File = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="The whole catalog in TOML: a table for each feature.")
]
RuleOption = Annotated[
    Rule, typer.Option("--rule", help="When enrolled agencies get it: now, with their next term, or not at all.")
]


@app.command()
@on_target()
async def show(
    target: Target,
    as_toml: Annotated[bool, typer.Option("--toml", help="Print it as a TOML file for `plan` and `apply`.")] = False,
) -> Answer:
    """Show the newest published version, and how many agencies do not have it yet."""
    async with target.service(_SERVICE, "read") as service:
        version = await service.get("/v1/catalog")
    if as_toml:
        return Answer(version, Text(_file(version["features"])))
    rows = [
        (
            escape(feature["key"]),
            access(feature["mode"], feature),
            _length(feature),
            count(feature["grace_days"], "day") if feature["grace_days"] else "-",
            access(feature["mode_after"], feature),
        )
        for feature in version["features"]
    ]
    heading = f"Version {version['number']}; agencies that do not have it yet: {version['agencies_left']:,}"
    return Answer(version, Group(heading, "", table(("feature", "open", "for", "grace", "then"), rows)))


@app.command()
@on_target()
async def draft(target: Target) -> Answer:
    """Show the draft of the next version, and who would gain, lose, or be above a quota if it were published now."""
    async with target.service(_SERVICE, "operate") as service:
        try:
            version = await service.get("/v1/catalog/draft")
        except NotFound:
            raise NotFound("the catalog has no draft: muster catalog apply saves one, and proposes it") from None
        planned = await _plan(service, version["rule"], version["features"])
    heading = f"Version {version['number']}, for agencies that are enrolled: {version['rule']}"
    return Answer({"draft": version, "plan": planned}, Group(heading, "", _shown(planned)))


@app.command()
@on_target()
async def plan(target: Target, file: File, rule: RuleOption) -> Answer:
    """Show who would gain, lose, or be above a quota if a file were published now. It changes nothing."""
    features = await asyncio.to_thread(_features, file)
    async with target.service(_SERVICE, "operate") as service:
        planned = await _plan(service, rule.value, features)
    return Answer(planned, _shown(planned))


@app.command()
@on_target()
async def apply(
    target: Target,
    file: File,
    rule: RuleOption,
    allow_below_use: Annotated[
        bool, typer.Option("--allow-below-use", help="Lower quotas at once, even below the use in the current period.")
    ] = False,
) -> Answer:
    """Propose a file as the next version, unless it equals the current one. Another person must approve it.

    A file that equals the current version is proposed if the rule brings it to enrolled agencies sooner.
    """
    features = await asyncio.to_thread(_features, file)
    async with target.service(_SERVICE, "operate", "read") as service:
        planned = await _plan(service, rule.value, features)
        present = await service.get("/v1/catalog")
        # Agencies may still gain or lose from the current version while its rollout continues.
        differs = any(feature["changed"] or feature["removed"] for feature in planned["features"])
        if not differs and not _is_sooner(rule, present):
            return Answer(present, f"Version {present['number']} is the same: nothing to publish.")
        if not allow_below_use and (above := _above(planned)):
            raise BadInput(f"{'; '.join(above)}: set a quota that is not lower, or pass --allow-below-use")
        version = await service.put("/v1/catalog/draft", {"rule": rule.value, "features": features})
        body = {"allow_below_use": True} if allow_below_use else None
        with _naming(features):
            proposal = await service.post(CATALOG_PUBLICATION, body, if_match=f'"{version["revision"]}"')
    return Answer(proposal, Group(_shown(planned), "", waiting(_SERVICE, proposal)))


def _is_sooner(rule: Rule, version: dict[str, Any]) -> bool:
    """Whether agencies that lack a version would get it sooner by a rule than by the version's own."""
    rules = list(Rule)  # the soonest first
    lacking = version["agencies_left"] or version["rule"] == Rule.NEW_AGENCIES  # such a version counts none
    return bool(lacking) and rules.index(rule) < rules.index(version["rule"])


def access(mode: str, feature: dict[str, Any]) -> str:
    """An access; for a quota, its limit, such as `20 a month per seat`."""
    quota = feature["quota"] or {"limit": feature["monthly_quota_after"]}
    if mode != "quota" or quota["limit"] is None:
        return mode
    rolling = " from its start" if quota.get("period") == "anchor" else ""
    lenient = ", report-only" if quota.get("report_only") else "" if quota.get("hard", True) else ", soft"
    return f"{quota['limit']:,} a month{rolling} per {quota.get('per', 'seat')}{lenient}"


def _length(feature: dict[str, Any]) -> str:
    if not feature["trial_days"]:
        return "the term"
    return count(feature["trial_days"], "day") + (" per seat" if feature["anchor"] == "seat" else "")


async def _plan(service: Service, rule: str, features: list[dict[str, Any]]) -> dict[str, Any]:
    with _naming(features):
        planned: dict[str, Any] = await service.post("/v1/catalog/plan", {"rule": rule, "features": features})
    return planned


@contextmanager
def _naming(features: list[dict[str, Any]]) -> Iterator[None]:
    """Name features in a refusal by key, as the file does; the service refers to them by index."""
    try:
        yield
    except BadInput as error:
        named = re.sub(r"\bfeatures\.(\d+)", lambda place: str(features[int(place[1])]["key"]), str(error))
        raise BadInput(named.replace(*STATED_BELOW_USE)) from None


def _shown(planned: dict[str, Any]) -> Any:
    if not planned["features"]:
        return "It is the same as the current version, and nobody would gain or lose access."
    rows = [
        (
            escape(feature["feature"]),
            _changes(feature, planned["number"] - 1),
            _who(feature["gaining"], feature["gaining_seats"]),
            _losing(feature, planned["rule"]),
        )
        for feature in planned["features"]
    ]
    shown = table(("feature", "changes", "who gains", "who loses"), rows)
    above = _above(planned)
    if not above:
        return shown
    return Group(shown, "", "Above their quota at once:", *(f"  {escape(line)}" for line in above))


def _above(planned: dict[str, Any]) -> list[str]:
    """A line for each feature whose quota would be below the use in the current period."""
    lines = []
    for feature in planned["features"]:
        if not feature.get("above"):  # an earlier release does not report it
            continue
        who = count(len(feature["above"]), "agency", "agencies")
        if feature["above_people"]:
            who = f"{count(feature['above_people'], 'person', 'people')} of {who}"
        lines.append(f"{feature['feature']}: {who} used up to {feature['most_used']:,} in this period")
    return lines


def _changes(feature: dict[str, Any], newest: int) -> str:
    """What differs from the newest version; or if nothing does, that some agencies still have an earlier version."""
    if feature["removed"]:
        return "removed"
    if "key" in feature["changed"]:  # a new feature differs in all fields; only then is the key among them
        return "new"
    return ", ".join(feature["changed"]) or f"as in version {newest}, which some agencies do not have yet"


def _losing(feature: dict[str, Any], rule: str) -> str:
    """Who loses the feature.

    If it is removed or narrower at once, nothing changes until the end of the term, where a plan's comparison ends.
    """
    later = feature["removed"] or feature.get("narrower")  # an earlier release does not report the latter
    if later and not feature["losing"] and rule == Rule.NOW:
        return "who has it, at the end of the term"
    return _who(feature["losing"], feature["losing_seats"])


def _who(agencies: list[str], seats: int) -> str:
    return f"{count(len(agencies), 'agency', 'agencies')}, {count(seats, 'seat')}" if agencies else "nobody"


def _features(file: Path) -> list[dict[str, Any]]:
    """The features in a file, in its order. Raises BadInput."""
    try:
        tables = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{file}: is not TOML in UTF-8: {error}") from None
    for key, stated in tables.items():
        if not isinstance(stated, dict):
            raise BadInput(f"{file}: {key} = {stated!r}: must be a table, as in [{key}]")
        if "key" in stated:
            raise BadInput(f"{file}: {key}.key = {stated['key']!r}: the name of the table is the key")
    return [{"key": key, **_plain(stated)} for key, stated in tables.items()]


def _file(features: list[dict[str, Any]]) -> str:
    """The content of a file from which `_features` reads these features."""
    tables = {each["key"]: _stated({name: each[name] for name in each if name != "key"}) for each in features}
    return tomlkit.dumps(tables).rstrip()


def _stated(table: dict[str, Any]) -> dict[str, Any]:
    """A table without null values, which TOML does not have."""
    return {
        name: _stated(value) if isinstance(value, dict) else value for name, value in table.items() if value is not None
    }


def _plain(value: Any) -> Any:
    """Convert a TOML value to JSON."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, date | time) else value
