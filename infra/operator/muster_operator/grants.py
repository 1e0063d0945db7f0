"""`muster grants`: features that an agency or a person has in addition to the windows."""

from enum import StrEnum
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.console import Group, RenderableType
from rich.markup import escape

from muster_operator.failures import BadInput
from muster_operator.feature_catalog import access
from muster_operator.group import group
from muster_operator.options import STATED_BELOW_USE
from muster_operator.output import Answer, facts, table
from muster_operator.parked import Agency, PublicReason
from muster_operator.service import agency_path
from muster_operator.target import Target, on_target

app = group("List, add, and revoke grants: features for an agency or one person, in addition to its windows.")

_SERVICE = "entitlements"

_STARTS = typer.Option(
    metavar="INSTANT", help="The start, with a UTC offset, such as 2025-10-05T00:00:00Z. Default: now."
)
_ENDS = typer.Option(metavar="INSTANT", help="The exclusive end, with a UTC offset. Default: until it is revoked.")


class Mode(StrEnum):
    """How a grant opens the feature."""

    UNLIMITED = "unlimited"
    QUOTA = "quota"


@app.command("list")
@on_target()
async def list_(target: Target, agency: Agency) -> Answer:
    """List an agency's grants, including past ones, oldest first."""
    async with target.service(_SERVICE, "read") as service:
        items = [item async for item in service.items(_path(agency))]
        standing = any(item["state"] in ("active", "scheduled") for item in items)
        state = (await service.get(f"{agency_path(agency)}/pool"))["state"] if standing else "open"
    rows = [
        (
            item["grant_id"],
            item["state"],
            escape(item["feature"]),
            item["subject_ref"] or "every seat",
            access(item["mode"], {"quota": None, "monthly_quota_after": item["monthly_quota"]}),
            item["starts_at"],
            item["ends_at"] or "-",
            escape(item["reason"]),
        )
        for item in items
    ]
    shown: RenderableType = table(("grant", "state", "feature", "for", "open", "from", "until", "reason"), rows)
    if not rows:
        shown = f"{escape(agency)} has no grants."
    elif state != "open":
        why = state.replace("_", " ")
        shown = Group(shown, "", f"The seat pool is not open ({why}): until it is, no grant has an effect.")
    return Answer({"items": items}, shown)


@app.command()
@on_target()
async def add(
    target: Target,
    agency: Agency,
    feature: Annotated[str, typer.Argument(help="A feature of the catalog.")],
    reason: PublicReason,
    subject: Annotated[
        str | None, typer.Option(help="A person's address or subject reference. Default: every seat of the agency.")
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="Without a limit, or within the catalog's monthly quota per seat, as a hard one.")
    ] = Mode.UNLIMITED,
    starts_at: Annotated[str | None, _STARTS] = None,
    ends_at: Annotated[str | None, _ENDS] = None,
    allow_below_use: Annotated[
        bool, typer.Option("--allow-below-use", help="Grant a quota even if it is below the use in its first period.")
    ] = False,
) -> Answer:
    """Grant a feature to an agency or one person."""
    stated: dict[str, Any] = {"subject": subject, "starts_at": starts_at, "ends_at": ends_at}
    given = {name: value for name, value in stated.items() if value is not None}
    if allow_below_use:
        given["allow_below_use"] = True
    async with target.service(_SERVICE, "operate") as service:
        try:
            body = {"feature": feature, "mode": mode.value, "reason": reason, **given}
            reply = await service.post(_path(agency), body)
        except BadInput as error:
            raise BadInput(str(error).replace(*STATED_BELOW_USE)) from None
    return Answer(reply, facts(reply))


@app.command()
@on_target()
async def revoke(
    target: Target,
    agency: Agency,
    grant: Annotated[str, typer.Argument(help="The grant's ID, as `list` prints it.")],
    reason: PublicReason,
) -> Answer:
    """Revoke a grant."""
    async with target.service(_SERVICE, "operate") as service:
        reply = await service.post(f"{_path(agency)}/{quote(grant, safe='')}/revocation", {"reason": reason})
    return Answer(reply, facts(reply))


def _path(agency: str) -> str:
    return f"{agency_path(agency)}/grants"
