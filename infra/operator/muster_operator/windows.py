"""`muster windows`: shows an agency's feature windows; previews and makes changes to them."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.markup import escape
from rich.table import Column

from muster_operator.failures import BadInput, NotFound
from muster_operator.feature_catalog import access
from muster_operator.group import group
from muster_operator.output import Answer, table
from muster_operator.parked import Agency, Reason
from muster_operator.proposals import is_proposal, waiting
from muster_operator.service import Service, agency_path
from muster_operator.target import Target, on_target
from muster_runtime.text import count

app = group("Show an agency's feature windows; extend a trial, end it, or correct its start.")

_SERVICE = "entitlements"

Feature = Annotated[str, typer.Argument(help="The feature, as `show` prints it.")]
EndsOn = Annotated[
    str | None,
    typer.Option(metavar="DAY", help="The trial's last day in the agency's time zone, such as 2025-11-03."),
]
EndsAt = Annotated[
    str | None,
    typer.Option(metavar="INSTANT", help="The trial's exclusive end, with a UTC offset, such as 2025-11-04T05:00:00Z."),
]
StartsOn = Annotated[
    str | None,
    typer.Option(metavar="DAY", help="The trial's first day in the agency's time zone, such as 2025-08-20."),
]
StartsAt = Annotated[
    str | None,
    typer.Option(metavar="INSTANT", help="The trial's start, with a UTC offset, such as 2025-08-20T04:00:00Z."),
]
Preview = Annotated[
    bool, typer.Option("--preview", help="Change nothing; show who would be affected, and what would be published.")
]


@app.command()
@on_target()
async def show(target: Target, agency: Agency) -> Answer:
    """Show the windows of an agency's current enrollment."""
    async with target.service(_SERVICE, "read") as service:
        page = await service.get(_path(agency))
        shown = await _shown(service, agency, page["items"])
    return Answer(page, shown if page["items"] else f"{escape(agency)} has no windows.")


@app.command()
@on_target()
async def extend(
    target: Target,
    agency: Agency,
    feature: Feature,
    reason: Reason,
    ends_on: EndsOn = None,
    ends_at: EndsAt = None,
    preview: Preview = False,
) -> Answer:
    """Extend a trial, once, up to the end of the term. Another person must approve it."""
    body = {"reason": reason, **_either("ends", ends_on, ends_at)}
    return await _decide(target, agency, feature, "extension", body, preview=preview)


@app.command()
@on_target()
async def end(
    target: Target,
    agency: Agency,
    feature: Feature,
    reason: Reason,
    ends_on: EndsOn = None,
    ends_at: EndsAt = None,
    preview: Preview = False,
) -> Answer:
    """End a trial early; by default, now."""
    body = {"reason": reason, **(_either("ends", ends_on, ends_at) if ends_on or ends_at else {})}
    return await _decide(target, agency, feature, "end", body, preview=preview)


@app.command()
@on_target()
async def correct(
    target: Target,
    agency: Agency,
    feature: Feature,
    reason: Reason,
    starts_on: StartsOn = None,
    starts_at: StartsAt = None,
    preview: Preview = False,
) -> Answer:
    """Correct the start of a trial and keep its length. Another person must approve it."""
    body = {"reason": reason, **_either("starts", starts_on, starts_at)}
    return await _decide(target, agency, feature, "start", body, preview=preview)


async def _decide(
    target: Target, agency: str, feature: str, decision: str, body: dict[str, str], *, preview: bool
) -> Answer:
    async with target.service(_SERVICE, "read", "operate") as service:
        window = await _window(service, agency, feature)
        path = f"{_path(agency)}/{window['window_id']}/{decision}"
        if preview:
            reply = await service.post(f"{path}/preview", body)
            return Answer(reply, _previewed(reply))
        reply = await service.post(path, body)
        return Answer(reply, waiting(_SERVICE, reply) if is_proposal(reply) else await _shown(service, agency, [reply]))


async def _window(service: Service, agency: str, feature: str) -> dict[str, Any]:
    """The agency's window of a feature. Raises NotFound."""
    windows: dict[str, dict[str, Any]] = {
        window["feature"]: window for window in (await service.get(_path(agency)))["items"]
    }
    if feature not in windows:
        raise NotFound(f"{agency} has no window for {feature}; it has {', '.join(windows) or 'none'}")
    return windows[feature]


def _path(agency: str) -> str:
    return f"{agency_path(agency)}/windows"


def _either(name: str, on: str | None, at: str | None) -> dict[str, str]:
    """The day or the instant as the service expects it. Raises BadInput unless exactly one is given."""
    if on is not None and at is not None:
        raise BadInput(f"pass --{name}-on or --{name}-at, not both")
    if on is not None:
        return {f"{name}_on": on}
    if at is not None:
        return {f"{name}_at": at}
    raise BadInput(f"pass either --{name}-on or --{name}-at")


async def _shown(service: Service, agency: str, windows: Sequence[dict[str, Any]]) -> Any:
    """A table of windows, with the quotas from their versions of the catalog. Raises NotFound without a pool."""
    pool = await service.get(f"{agency_path(agency)}/pool")
    versions = {
        number: {each["key"]: each for each in (await service.get(f"/v1/catalog/versions/{number}"))["features"]}
        for number in {window["catalog_number"] for window in windows}
    }
    rows = []
    for window in windows:
        feature = versions[window["catalog_number"]][window["feature"]]
        rows.append(
            (
                escape(window["feature"]),
                _now(window, feature, pool["state"]),
                f"{access(window['mode'], feature)} for {_length(window)}",
                window["starts_at"],
                window["ends_at"],
                _afterward(window, feature),
            )
        )
    key, starts_at, ends_at = (Column(name, no_wrap=True) for name in ("feature", "from", "until"))
    return table((key, "now", "open", starts_at, ends_at, "then"), rows)


def _now(window: dict[str, Any], feature: dict[str, Any], pool: str) -> str:
    """What applies now: nothing unless the pool is open. In a window anchored on seats, each seat has its own trial."""
    if pool != "open":
        return f"none ({pool.replace('_', ' ')})"
    of_seats = window["seat_days"] is not None and window["access"] == window["mode"]
    return "by seat" if of_seats else access(window["access"], feature)


def _length(window: dict[str, Any]) -> str:
    """How long the window lasts; for a trial that begins with each seat's first use, its days."""
    if window["seat_days"] is not None:
        return f"{count(window['seat_days'], 'day')} per seat"
    if not window["trial"]:
        return "the term"
    return "the extended trial" if window["extended"] else "the trial"


def _afterward(window: dict[str, Any], feature: dict[str, Any]) -> str:
    then = access(window["mode_after"], feature)
    return f"{then}, after grace until {window['grace_ends_at']}" if window["grace_ends_at"] else then


def _previewed(reply: dict[str, Any]) -> Group:
    window = reply["window"]
    bounds = table(
        ("", "now", "then"),
        [
            ("from", reply["previous_starts_at"], window["starts_at"]),
            ("until", reply["previous_ends_at"], window["ends_at"]),
        ],
    )
    events = table(
        ("at", "would be published", "days left"),
        [(each["at"], each["event"], str(each["days_left"] or "-")) for each in reply["messages"]],
    )
    restarts = reply.get("restarts_quota")  # an earlier release's reply lacks it
    quota = ["", "The quota would start again: use of the current period would no longer count."] if restarts else []
    return Group(f"{escape(window['feature'])}; seats in use: {reply['seats']:,}", "", bounds, "", events, *quota)
