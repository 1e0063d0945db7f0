"""`muster seats`: uploads seat files and shows the progress of their import."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from muster_operator.failures import BadInput
from muster_operator.group import group
from muster_operator.output import Answer, table
from muster_operator.service import agency_path, client, elsewhere, json_of, no_answer, require_success
from muster_operator.target import Target, on_target
from muster_runtime.console import console

app = group("Import an agency's seats.")

_SERVICE = "entitlements"

_SECONDS = 60.0

_PIECE_BYTES = 262_144
_LOOK_SECONDS = 0.1

# How long to wait for a killed service, which is back within seconds and continues.
_PATIENCE_SECONDS = 60.0

_RETRY_SECONDS = 1.0

_AGAIN = "the import has ended, so import the file again, which changes nothing"

# The statuses of a busy service, a service without its database, or a proxy in front.
_TRY_AGAIN = frozenset({429, 502, 503, 504})


class OnLimit(StrEnum):
    """What to do when no seat is left."""

    STOP = "stop"
    FILL = "fill"


@app.callback()
def seats() -> None:
    """Import an agency's seats."""


@app.command("import")
@on_target()
async def import_(
    target: Target,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV with a header: email, name, unit.")],
    agency: Annotated[str, typer.Option("--agency", help="The agency's ID.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; show what would change.")] = False,
    on_limit: Annotated[
        OnLimit,
        typer.Option("--on-limit", help="When no seat is left: stop, or refuse the person and continue (fill)."),
    ] = OnLimit.FILL,
    results: Annotated[
        Path | None, typer.Option("--results", help="Write the result of each row to this CSV file.")
    ] = None,
) -> Answer:
    """Assign a seat to each person in a file. Importing it again changes nothing.

    The exit status is 1 if a row is refused.
    """
    if results is not None:
        _require_writable(results)
    url = target.url(_SERVICE)
    credential = target.credential("entitlements:read", "entitlements:write")
    async with client(_SERVICE, url, credential, _SECONDS) as http:
        with _progress() as progress:
            query = {"dry_run": str(dry_run).lower(), "on_limit": on_limit.value}
            address = await _send(http, progress, file, f"{agency_path(agency)}/seat-imports", query)
            operation = await _follow(http, progress, address)
        if results is not None:
            await _download(http, operation["results"], results)
    shown: list[RenderableType] = ["Dry run: nothing was changed"] if dry_run else []
    shown.append(_sums(operation))
    if reason := operation["stop_reason"]:
        shown.append(f"Stopped: {escape(reason)}. The rest of the file was not read.")
    if operation["refused"] and results is None:
        shown.append("To see which rows were refused, and why, import the file again with --results FILE")
    return Answer(operation, Group(*shown), ok=not operation["refused"])


def _progress() -> Progress:
    stderr = console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeRemainingColumn(),
        console=stderr,
        disable=not stderr.is_terminal,
    )


async def _send(http: httpx.AsyncClient, progress: Progress, file: Path, path: str, query: Mapping[str, str]) -> str:
    """Send the file; return the path of its operation. Raises CommandFailed."""
    task = progress.add_task("Sending", total=file.stat().st_size, rows="")

    async def pieces() -> AsyncIterator[bytes]:
        with file.open("rb") as source:
            while piece := await asyncio.to_thread(source.read, _PIECE_BYTES):
                yield piece
                progress.advance(task, len(piece))

    headers = {"content-type": "text/csv", "idempotency-key": uuid.uuid4().hex}
    try:
        reply = await http.post(path, params=query, content=pieces(), headers=headers)
    except httpx.HTTPError as error:
        raise no_answer(_SERVICE, error) from None
    require_success(_SERVICE, reply)
    if "location" not in reply.headers:
        raise elsewhere(_SERVICE, "the reply names no operation")
    return reply.headers["location"]


async def _follow(http: httpx.AsyncClient, progress: Progress, path: str) -> dict[str, Any]:
    """Show the progress until the operation ends; return the operation. Raises CommandFailed."""
    task = progress.add_task("Processing", total=1.0, rows="")
    while True:
        operation = await _look(http, path)
        rate = operation["rows_per_second"]
        rows = f"{operation['rows']:,} rows" + (f", {rate:,.0f}/s" if rate else "")
        progress.update(task, completed=operation["progress"], rows=rows)
        if operation["state"] != "running":
            return operation
        await asyncio.sleep(_LOOK_SECONDS)


async def _look(http: httpx.AsyncClient, path: str) -> dict[str, Any]:
    """The operation's current state. Raises CommandFailed if the service refuses, or does not answer for a minute."""
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    while True:
        late = time.monotonic() > give_up_at
        try:
            reply = await http.get(path)
            if late or reply.status_code not in _TRY_AGAIN:
                operation: dict[str, Any] = json_of(_SERVICE, reply)
                return operation
        except httpx.HTTPError as error:
            if late:
                raise no_answer(_SERVICE, error) from None
        await asyncio.sleep(_RETRY_SECONDS)


def _require_writable(results: Path) -> None:
    """Raise BadInput unless the file can be written. Its content stays."""
    try:
        results.open("ab").close()
    except OSError as error:
        raise BadInput(f"--results {results}: {error.strerror}") from None


async def _download(http: httpx.AsyncClient, path: str, file: Path) -> None:
    """Write the results. Raises CommandFailed, which says that the file is incomplete: the import itself has ended."""
    try:
        async with http.stream("GET", path) as reply:
            if not reply.is_success:
                await reply.aread()
                require_success(_SERVICE, reply)
            with file.open("wb") as target:
                async for piece in reply.aiter_bytes():
                    await asyncio.to_thread(target.write, piece)
    except OSError as error:
        raise BadInput(f"--results {file} is incomplete: {error.strerror}: {_AGAIN}") from None
    except httpx.HTTPError as error:
        failed = no_answer(_SERVICE, error)
        raise type(failed)(f"--results {file} is incomplete: {failed}: {_AGAIN}") from None


def _sums(operation: Mapping[str, Any]) -> Table:
    counts = [f"{operation[key]:,}" for key in ("rows", "assigned", "already_held", "refused")]
    return table(("rows", "assigned", "already held", "refused"), [counts])
