"""`muster subscribers`: other programs that read Muster's topics, what they may do, and their lag."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from muster_contracts import Deprecation
from muster_operator.access.acls import PRINCIPAL
from muster_operator.access.administrator import WithoutAcls
from muster_operator.access.options import PrincipalOption
from muster_operator.failures import BadInput, Refused
from muster_operator.group import group
from muster_operator.output import Answer, table
from muster_operator.subscribers.enrolling import grant, password_for, repeatable, replacement, withdraw
from muster_operator.subscribers.groups import Group, groups_of
from muster_operator.subscribers.registry import Registry, Subscriber, checked
from muster_operator.target import Target, on_target
from muster_runtime.clock import SystemClock

app = group("Register the programs that read Muster's topics: who owns them, what they may do, and their lag.")

# The time until the next review, unless a day is given.
REVIEWED_AFTER = timedelta(days=365)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The subscriber's name, such as treasury-dashboard.")]
FileOption = Annotated[Path, typer.Option("--file", help="The subscribers' file, in TOML.")]


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: must be a day such as 2027-11-27") from None


DayOption = Annotated[
    date | None, typer.Option(parser=_day, metavar="DAY", help="The day of the next review. Default: in a year.")
]
DEFAULT_FILE = Path("subscribers.toml")


@app.command("list")
@on_target(asks=False)
async def list_(
    target: Target,
    file: FileOption = DEFAULT_FILE,
    overdue: Annotated[
        bool, typer.Option("--overdue", help="Only those whose review is overdue; the exit status is 1 if any is.")
    ] = False,
) -> Answer:
    """List the subscribers: owner, topics, review, lag, and the deprecated events that they read.

    The lag is that of the subscriber's consumer groups. To show it, the command needs a running stack or
    MUSTER_KAFKA_BOOTSTRAP.
    """
    registry = Registry.read(file)
    shown = [each for each in registry.subscribers.values() if not overdue or _is_overdue(each)]
    groups = await _groups(target, shown)
    rows = [
        (
            each.name,
            escape(each.owner),
            each.classification,
            "\n".join((*each.topics, *(f"{name} (writes)" for name in each.produces))),
            f"[red]{each.review} overdue[/red]" if _is_overdue(each) else str(each.review),
            "" if groups is None else _lag(groups.get(each.name, [])),
            "\n".join(_in_words(*found) for found in each.deprecated),
        )
        for each in shown
    ]
    nothing = "No review is overdue." if overdue else f"There is no subscriber in {file}."
    heads = ("name", "owner", "classification", "topics", "review", "lag", "deprecated")
    items = [_as_json(each, None if groups is None else groups.get(each.name, [])) for each in shown]
    return Answer({"items": items}, table(heads, rows, lines=True) if rows else nothing, ok=not (overdue and shown))


@app.command()
@on_target(asks=False)
async def show(
    target: Target, name: Name, file: FileOption = DEFAULT_FILE, principal: PrincipalOption = PRINCIPAL
) -> Answer:
    """Show a subscriber: its registration, its ACLs, and its consumer groups."""
    subscriber = Registry.read(file)[name]
    groups = await _groups(target, [subscriber])
    acls = subscriber.acls(target.topic_prefix, principal)
    facts = _as_json(subscriber, None if groups is None else groups.get(name, []))
    rows = [(key, escape(_cell(value))) for key, value in facts.items()]
    rows.append(("acls", escape("\n".join(map(str, acls)))))
    return Answer({**facts, "acls": [str(acl) for acl in acls]}, table(("", ""), rows))


@app.command()
@on_target(asks=False)
async def add(
    target: Target,
    name: Name,
    owner: Annotated[str | None, typer.Option(help="The organization that is responsible for it.")] = None,
    contact: Annotated[
        str | None, typer.Option(help="How to reach its owner, such as an e-mail address or a telephone number.")
    ] = None,
    purpose: Annotated[str | None, typer.Option(help="What it does with the events.")] = None,
    topic: Annotated[list[str] | None, typer.Option(help="A topic that it reads. Repeatable.")] = None,
    reads: Annotated[
        list[str] | None,
        typer.Option(help="An event type with its major version, such as muster.billing.TermStarted.v1. Repeatable."),
    ] = None,
    produces: Annotated[
        list[str] | None, typer.Option(help="A topic that it writes to, such as muster.entitlements.usage. Repeatable.")
    ] = None,
    classification: Annotated[
        str | None, typer.Option(help="Set it to restricted if it reads a restricted topic. Default: public.")
    ] = None,
    review: DayOption = None,
    password_file: Annotated[
        Path | None, typer.Option(help="The file to write its password to, with mode 0600. Default: print it once.")
    ] = None,
    new_password: Annotated[
        bool, typer.Option("--new-password", help="Replace its current password, and the one in --password-file.")
    ] = False,
    no_password: Annotated[
        bool, typer.Option("--no-password", help="Set no password: it uses a certificate or a token.")
    ] = False,
    file: FileOption = DEFAULT_FILE,
    principal: PrincipalOption = PRINCIPAL,
) -> Answer:
    """Register a subscriber: write it to the file, and create its ACLs and its password on Kafka.

    With only a name, the command brings Kafka in line with the file after you edit a subscriber. After a failure, run
    the same command again. If Kafka has no ACLs, as in a plain sandbox, it only writes the file.
    """
    if new_password and no_password:
        raise BadInput("--new-password and --no-password are mutually exclusive")
    if password_file is not None and not password_file.parent.is_dir():
        raise BadInput(f"--password-file {password_file}: there is no folder {password_file.parent}")
    given = {
        "owner": owner,
        "contact": contact,
        "purpose": purpose,
        "classification": classification,
        "topics": topic,
        "reads": reads,
        "produces": produces,
        "review": review,
    }
    registry = Registry.read(file, may_be_missing=True)
    subscriber = _subscriber(registry, name, {field: value for field, value in given.items() if value is not None})
    target.require("kafka")
    administrator = target.administrator()
    # The file comes first, so that everything on Kafka is always on record.
    if registry.subscribers.get(name) != subscriber:
        registry.put(subscriber)
    made = ""
    with repeatable():
        try:
            acls = await grant(administrator, subscriber, target.topic_prefix, principal)
        except WithoutAcls as why:
            text = f"{name} is registered in {file}, without ACLs and without a password: {why}"
            return Answer({**_as_json(subscriber, None), "acls": []}, escape(text))
        if new_password:
            with replacement(password_file) as made:
                await administrator.set_password(name, made)
        elif not no_password and not await administrator.has_user(name):
            made = password_for(password_file)
            await administrator.set_password(name, made)
    shown = [*map(str, acls)]
    if made:
        where = f"kept in {password_file}" if password_file else f"{made} (it is not shown again)"
        shown.append(f"The password of {name} is {where}")
    printed = {"password": made} if made and password_file is None else {}
    return Answer(
        {**_as_json(subscriber, None), "acls": [str(acl) for acl in acls], **printed}, escape("\n".join(shown))
    )


@app.command()
@on_target(asks=False)
async def review(target: Target, name: Name, next: DayOption = None, file: FileOption = DEFAULT_FILE) -> Answer:
    """Record that the owner has confirmed a subscriber's registration, and when the next review is due."""
    registry = Registry.read(file)
    today = SystemClock().now().date()
    day = next or today + REVIEWED_AFTER
    if day <= today:
        raise BadInput(f"--next {day}: must be after today, {today}")
    subscriber = registry[name].model_copy(update={"review": day})
    registry.put(subscriber)
    groups = await _groups(target, [subscriber])
    deprecated = [f"It reads {_in_words(*found)}" for found in subscriber.deprecated]
    text = "\n".join((f"{name}: the next review is on {day}", *deprecated))
    return Answer(_as_json(subscriber, None if groups is None else groups.get(name, [])), escape(text))


@app.command()
@on_target(asks=False)
async def remove(
    target: Target, name: Name, file: FileOption = DEFAULT_FILE, principal: PrincipalOption = PRINCIPAL
) -> Answer:
    """Remove a subscriber's password and ACLs from Kafka, and the subscriber from the file."""
    registry = Registry.read(file)
    subscriber = registry[name]
    target.require("kafka")
    with repeatable():
        await withdraw(target.administrator(), subscriber, target.topic_prefix, principal)
    # The file comes last, so that everything left on Kafka is still on record.
    registry.drop(name)
    return Answer({"name": name}, f"{name} is removed: its password and its ACLs are gone")


def _subscriber(registry: Registry, name: str, given: Mapping[str, Any]) -> Subscriber:
    """The subscriber to register. Raises BadInput, or Refused if the file has different facts about it."""
    known = registry.subscribers.get(name)
    if known is None:
        for field in ("owner", "contact", "purpose"):
            if field not in given:
                raise BadInput(f"--{field} is missing: {name} is not registered in {registry.path} yet")
        return checked(name, {"review": SystemClock().now().date() + REVIEWED_AFTER, **given})
    asked = checked(name, {**known.model_dump(exclude={"name"}), **given})
    for field, value in asked.model_dump().items():
        if value != getattr(known, field):
            raise Refused(f"{name} is registered with another {field}: edit {registry.path}, then add {name} again")
    return known


async def _groups(target: Target, subscribers: Sequence[Subscriber]) -> dict[str, list[Group]] | None:
    """The subscribers' consumer groups; None if Kafka is not configured or there are no subscribers."""
    if not target.kafka.bootstrap or not subscribers:
        return None
    return await groups_of(target.administrator(), target.topic_prefix, [each.name for each in subscribers])


def _is_overdue(subscriber: Subscriber) -> bool:
    return subscriber.review < SystemClock().now().date()


def _lag(groups: Sequence[Group]) -> str:
    return "\n".join(f"{each.name}: {each.lag:,}" for each in groups) or "has not read anything"


def _in_words(name: str, deprecation: Deprecation) -> str:
    return f"{name}, emitted until {deprecation.sunset}: {deprecation.replaced_by} replaces it"


def _as_json(subscriber: Subscriber, groups: Sequence[Group] | None) -> dict[str, Any]:
    deprecated = [
        {"type": name, "sunset": each.sunset.isoformat(), "replaced_by": each.replaced_by}
        for name, each in subscriber.deprecated
    ]
    return {
        **subscriber.model_dump(mode="json"),
        "overdue": _is_overdue(subscriber),
        "deprecated": deprecated,
        "groups": None if groups is None else [{"group": each.name, "lag": each.lag} for each in groups],
    }


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)
