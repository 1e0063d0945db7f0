"""`muster seats`: uploads files of seats and follows their processing."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from muster_local.stack import DEFAULT_HOME
from muster_local.target import HomeOption, Refused, Target, TokenOption, console, run

app = typer.Typer(no_args_is_help=True, help="Import an agency's seats.")

_PIECE_BYTES = 262_144
_LOOK_SECONDS = 0.1

# A killed service is back within seconds, and continues.
_PATIENCE_SECONDS = 60.0


class OnLimit(StrEnum):
    """What to do when no seat is left."""

    STOP = "stop"
    FILL = "fill"


@app.callback()
def seats() -> None:
    """Import an agency's seats."""


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="CSV with a header: email, name.")],
    agency: Annotated[str, typer.Option("--agency", help="The agency's ID.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; show what would change.")] = False,
    on_limit: Annotated[
        OnLimit,
        typer.Option("--on-limit", help="When no seat is left: stop, or refuse the person and continue (fill)."),
    ] = OnLimit.FILL,
    results: Annotated[
        Path | None, typer.Option("--results", help="Write the result of each row to this CSV file.")
    ] = None,
    home: HomeOption = DEFAULT_HOME,
    token: TokenOption = None,
) -> None:
    """Assign a seat to each person in a file. Importing it again changes nothing. Exit status 1 if a row is refused."""
    target = Target.find(home, token, scopes=("entitlements:read", "entitlements:write")).require("urls")

    async def work() -> dict[str, Any]:
        headers = {"authorization": f"Bearer {target.token}"}
        url = target.urls["entitlements"]
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60.0, trust_env=False) as http:
            with _progress() as progress:
                query = {"dry_run": str(dry_run).lower(), "on_limit": on_limit.value}
                address = await _send(http, progress, file, f"/v1/agencies/{agency}/seat-imports", query)
                operation = await _follow(http, progress, address)
            if results is not None:
                await _download(http, operation["results"], results)
            return operation

    operation = run(work())
    console.print(_sums(operation))
    if operation["stop_reason"]:
        console.print(f"Stopped: {operation['stop_reason']}. The rest of the file was not read.")
    if operation["refused"]:
        raise typer.Exit(1)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]}"),
        TimeRemainingColumn(),
        console=console,
    )


async def _send(http: httpx.AsyncClient, progress: Progress, file: Path, path: str, query: Mapping[str, str]) -> str:
    """Send the file; returns the path of its operation. Raises Refused."""
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
        raise Refused(f"entitlements does not answer: {error or type(error).__name__}. Send the file again.") from None
    _require_success(reply)
    return reply.headers["location"]


async def _follow(http: httpx.AsyncClient, progress: Progress, path: str) -> dict[str, Any]:
    """Show the progress until the operation ends. Raises Refused."""
    task = progress.add_task("Processing", total=1.0, rows="")
    give_up_at = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            reply = await http.get(path)
        except httpx.HTTPError as error:
            if time.monotonic() > give_up_at:
                raise Refused(f"entitlements does not answer: {error or type(error).__name__}. See {path}.") from None
        else:
            _require_success(reply)
            give_up_at = time.monotonic() + _PATIENCE_SECONDS
            operation: dict[str, Any] = reply.json()
            rate = operation["rows_per_second"]
            rows = f"{operation['rows']:,} rows" + (f", {rate:,.0f}/s" if rate else "")
            progress.update(task, completed=operation["progress"], rows=rows)
            if operation["state"] != "running":
                return operation
        await asyncio.sleep(_LOOK_SECONDS)


async def _download(http: httpx.AsyncClient, path: str, file: Path) -> None:
    async with http.stream("GET", path) as reply:
        if reply.is_error:
            await reply.aread()
            _require_success(reply)
        with file.open("wb") as target:
            async for piece in reply.aiter_bytes():
                await asyncio.to_thread(target.write, piece)


def _require_success(reply: httpx.Response) -> None:
    if reply.is_error:
        problem = reply.json()
        raise Refused(f"entitlements: {problem['title']}: {problem.get('detail', '')}")


def _sums(operation: Mapping[str, Any]) -> Table:
    title = "Dry run: nothing was changed" if operation["dry_run"] else "Import"
    table = Table("rows", "assigned", "already held", "refused", title=title)
    table.add_row(*(f"{operation[key]:,}" for key in ("rows", "assigned", "already_held", "refused")))
    return table
