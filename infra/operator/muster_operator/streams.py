"""`muster streams`: every stream's position in every service; gaps, the epoch, and rereading after a restore."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any

import typer
from rich.markup import escape

from muster_contracts import Position
from muster_contracts import topics as all_topics
from muster_operator.check import check
from muster_operator.failures import BadInput, NotFound, Refused
from muster_operator.group import group
from muster_operator.options import DEFAULT_HOME, HomeOption, JsonOption, ServiceOption, TokenOption, a_service
from muster_operator.output import Answer, finish, table
from muster_operator.parked import Agency, Reason, Topic, one, outcome
from muster_operator.reconcile.streams import NOTHING, position_of
from muster_operator.service import Service, every_item
from muster_operator.target import Target, on_target
from muster_runtime.text import count

app = group(
    "Show each stream's last sequence, produced and applied; accept gaps, raise the epoch, reread topics.",
    runs_alone=True,
)
gap = group("Accept the sequences that a stream lacks.")
epoch = group("Raise the epoch of a service's streams.")
app.add_typer(gap, name="gap")
app.add_typer(epoch, name="epoch")
app.command("check")(check)

Restored = Annotated[
    str, typer.Argument(metavar="SERVICE", callback=a_service, help="The service whose database was restored.")
]


@app.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    topic: Annotated[str | None, typer.Option(help="Show only this topic.")] = None,
    agency: Annotated[str | None, typer.Option(help="Show only this agency.")] = None,
    behind: Annotated[
        bool,
        typer.Option(
            "--behind", help="Show only streams of which a service is known to lack events; `check` finds them all."
        ),
    ] = False,
    home: HomeOption = DEFAULT_HOME,
    token: TokenOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show each stream's last sequence: produced by its owner, and applied by each reader."""
    if context.invoked_subcommand is not None:
        return
    if topic is not None and topic not in all_topics():
        raise BadInput(f"--topic {topic}: must be one of {', '.join(all_topics())}")
    finish(_show(Target.find(home, token), topic, agency, behind=behind), as_json=as_json)


async def _show(target: Target, topic: str | None, agency: str | None, *, behind: bool) -> Answer:
    query = {name: value for name, value in (("topic", topic), ("agency_id", agency)) if value is not None}
    async with target.services() as services:
        states = await _states(services, query)
    items, rows = [], []
    for (name, agency_id), by_service in sorted(states.items()):
        description = all_topics()[name]
        produced = position_of(by_service.get(description.owner, {}).get("produced"))
        applied = {s: position_of(by_service.get(s, {}).get("applied")) for s in description.readers}
        late = _behind(applied, produced)
        if behind and not late:
            continue
        rows.append((name, agency_id, _text(produced), _applied(by_service, applied, late)))
        items.append(
            {
                "topic": name,
                "agency_id": agency_id,
                "produced": _as_json(produced),
                "applied": {service: _as_json(position) for service, position in applied.items()},
                "behind": late,
                "parked": [service for service in applied if by_service.get(service, {}).get("parked")],
            }
        )
    if agency is not None and not states:
        raise NotFound(f"no stream of agency {agency}")
    nothing = "No stream is behind." if behind else "There are no streams yet."
    return Answer({"items": items}, table(("topic", "agency", "produced", "applied"), rows) if rows else nothing)


@gap.command("accept")
@on_target()
async def accept_gap(
    target: Target, topic: Topic, agency: Agency, reason: Reason, service: ServiceOption = None
) -> Answer:
    """Accept the missing sequences that a parked stream waits for, and replay it. What they contained stays unknown."""
    async with target.services(service) as services:
        stream = await one(services, topic, agency)
        waiting = (await stream.service.get(stream.path))["first_records"][0]["sequence"]
        if waiting is None:
            raise Refused(f"{stream} is not parked for a gap: {stream.facts['reason']}")
        shown = await stream.service.get("/v1/streams", topic=topic, agency_id=agency)
        applied = next((position_of(state["applied"]) for state in shown["items"]), NOTHING)
        body = {"waiting": waiting, "reason": reason}
        state = await stream.service.post(f"/v1/streams/{topic}/{agency}/gap", body)
        reply = await stream.service.post(f"{stream.path}/replay")
    accepted = position_of(state["applied"])
    lines = (
        f"{stream}: sequence {waiting:,} waits; {_text(applied)} is applied",
        f"{stream}: accepted up to {_text(accepted)}",
        outcome(reply, "replayed"),
    )
    found = {"waiting": waiting, "applied": _as_json(applied), "accepted": _as_json(accepted)}
    return Answer({**stream.named(), **found, **reply}, "\n".join(lines), ok=not reply["parked"])


@epoch.command("raise")
@on_target()
async def raise_epoch(target: Target, service: Restored, reason: Reason) -> Answer:
    """Continue every stream of a restored service in a new epoch.

    The service refuses while another of its processes publishes. After a restore, run the service with its operator
    routes only, so that it publishes nothing before this command. From then on, it handles no deadline until you
    release them.
    """
    async with target.services() as services:
        own = {name for name, topic in all_topics().items() if topic.owner == service}
        others = {name: each for name, each in services.items() if name != service}
        seen = await _states(others, {})
        above = max(
            (
                position_of(state["applied"]).epoch
                for (topic, _), by_service in seen.items()
                for state in by_service.values()
                if topic in own
            ),
            default=0,
        )
        if service not in services:
            raise BadInput(f"{service}: must be one of {', '.join(services)}")
        raised = await services[service].post("/v1/epoch", {"reason": reason, "above": above})
    streams = count(raised["streams"], "stream continues", "streams continue")
    text = f"{service}: {streams} in epoch {raised['epoch']}"
    if raised.get("deadlines_held"):  # an earlier release does not hold them
        release = f"muster deadlines release {service}"
        text += f"\n{service}: its deadlines are held; once its lost commands have been repeated: {release}"
    return Answer({"service": service, **raised}, text)


@app.command()
@on_target()
async def rewind(
    target: Target,
    service: Annotated[
        str, typer.Argument(metavar="SERVICE", callback=a_service, help="The service that is to read its topics again.")
    ],
    reason: Reason,
) -> Answer:
    """Make a service read its topics again from the beginning. It skips what it has already applied.

    Run the service with its operator routes only: Kafka refuses while any process of the service consumes.
    """
    async with target.services(service) as services:
        rewound = await services[service].post("/v1/rewind", {"reason": reason})
    text = f"{service} reads from the beginning: {', '.join(rewound['topics'])}"
    return Answer({"service": service, **rewound}, text)


@app.command("pass")
@on_target()
async def pass_record(
    target: Target,
    service: Annotated[str, typer.Argument(callback=a_service, help="The service that the record blocks.")],
    topic: Topic,
    partition: Annotated[
        int, typer.Argument(min=0, help="The partition, as readiness shows it: topic[partition]@offset.")
    ],
    offset: Annotated[int, typer.Argument(min=0, help="The offset, as readiness shows it.")],
    reason: Reason,
    through: Annotated[
        int | None, typer.Option(min=0, help="The last offset to skip, if more than one record is damaged.")
    ] = None,
) -> Answer:
    """Make a service skip a record that it cannot decode, or that another program wrote to its topic."""
    described = all_topics().get(topic)
    if described is not None and partition >= described.partitions:
        raise BadInput(f"{partition}: {topic} has the partitions 0 to {described.partitions - 1}")
    async with target.services(service) as services:
        body = {"offset": offset, "last_offset": through, "reason": reason}
        passed = await services[service].post(f"/v1/partitions/{topic}/{partition}/pass", body)
    first, last = passed["first_offset"], passed["last_offset"]
    rest, them = ("", "it") if first == last else (f" to {last}", "them")
    text = f"{service} will skip {topic}[{partition}]@{first}{rest} if it cannot read {them}"
    return Answer({"service": service, **passed}, escape(text))


async def _states(
    services: Mapping[str, Service], query: Mapping[str, str]
) -> dict[tuple[str, str], dict[str, dict[str, Any]]]:
    """Each service's state of each stream, by topic and agency, then by service."""
    states: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for service, item in await every_item(services, "/v1/streams", **query):
        states.setdefault((item["topic"], item["agency_id"]), {})[service.name] = item
    return states


def _as_json(position: Position) -> dict[str, int] | None:
    return position._asdict() if position.epoch else None


def _behind(applied: Mapping[str, Position], produced: Position) -> list[str]:
    """The readers that have something left to apply.

    A reader learns about a raised epoch only from its first event, and it is not known here whether there is one yet,
    unless another reader has applied it.
    """
    newest = max((position.epoch for position in applied.values()), default=produced.epoch)

    def is_behind(position: Position) -> bool:
        awaits_the_epoch = newest <= position.epoch < produced.epoch and position.sequence >= produced.sequence
        return position != produced and not awaits_the_epoch

    return [service for service, position in applied.items() if is_behind(position)]


def _text(position: Position) -> str:
    epoch, sequence = position
    return "-" if not epoch else f"{sequence:,}" if epoch == 1 else f"{sequence:,} (epoch {epoch})"


def _applied(
    by_service: Mapping[str, Mapping[str, Any]], applied: Mapping[str, Position], late: Collection[str]
) -> str:
    def one_of(service: str, position: Position) -> str:
        text = f"{service} {_text(position)}"
        if by_service.get(service, {}).get("parked"):
            return f"[red]{text} parked[/red]"
        return f"[yellow]{text}[/yellow]" if service in late else text

    return ", ".join(one_of(service, position) for service, position in applied.items())
