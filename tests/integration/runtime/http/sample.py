"""The smallest service that uses every part of the HTTP side."""

from pathlib import Path
from typing import Annotated

import asyncpg
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from muster_runtime.database.schema import Schema
from muster_runtime.database.transactions import Connection, UnitOfWork
from muster_runtime.errors import Conflict, InvalidInput, NotFound, PreconditionFailed, RetryableError
from muster_runtime.http.application import (
    PROPOSED,
    CommandsDep,
    IfMatchDep,
    PageDep,
    ReaderDep,
    RequestBody,
    body_limit,
    etag,
    needs_approval,
    requires,
)
from muster_runtime.http.problem_responses import COMMON
from muster_runtime.identifiers import new_id
from muster_runtime.observability import audit
from muster_runtime.pagination import Page
from muster_runtime.service import Service
from muster_runtime.settings import Settings

UPLOAD_LIMIT = 3_000_000

router = APIRouter(prefix="/v1/agencies/{agency_id}", responses={"default": COMMON["default"]})


class Author(RequestBody):
    name: str = Field(min_length=1)


class NewNote(RequestBody):
    text: str = Field(max_length=100)
    copies: int = Field(default=1, ge=1, le=9)
    author: Author | None = None


class Note(BaseModel):
    note_id: str
    text: str
    version: int


class Size(BaseModel):
    size: int


async def insert_note(uow: UnitOfWork, agency_id: str, text: str) -> Note:
    note = Note(note_id=new_id("note", uow.now), text=text, version=1)
    await uow.connection.execute(
        """
        insert into note (note_id, agency_id, text)
        values ($1, $2, $3)
        """,
        note.note_id,
        agency_id,
        note.text,
    )
    return note


@router.post("/notes", status_code=201, dependencies=[requires("sample:write")])
async def write_note(
    agency_id: str, body: NewNote, commands: CommandsDep, again: Annotated[int | None, Query()] = None
) -> Response:
    async def handle(uow: UnitOfWork) -> Note:
        if body.text == "taken":
            raise Conflict("there is such a note already")
        if body.text == "wrong":
            raise InvalidInput("text", body.text, "must not be wrong")
        note = await insert_note(uow, agency_id, body.text)
        audit.record(
            uow, command="WriteNote", agency_id=agency_id, subject=note.note_id, after={"version": 1}, reason="asked"
        )
        return note

    return await commands.execute(
        agency_id, handle, status_code=201, location=lambda note: f"/v1/agencies/{agency_id}/notes/{note.note_id}"
    )


@router.put("/notes/{note_id}", dependencies=[requires("sample:write")])
async def edit_note(
    agency_id: str, note_id: str, body: NewNote, commands: CommandsDep, if_match: IfMatchDep
) -> Response:
    async def handle(uow: UnitOfWork) -> Note:
        version = await uow.connection.fetchval(
            """
            select version
            from note
            where note_id = $1
            """,
            note_id,
        )
        if if_match is not None and if_match != version:
            raise PreconditionFailed(f"{note_id} is at version {version}, not {if_match}")
        row = await uow.connection.fetchrow(
            """
            update note
            set text = $2, version = version + 1
            where note_id = $1
            returning note_id, text, version
            """,
            note_id,
            body.text,
        )
        return Note.model_validate(dict(row or {}))

    return await commands.execute(agency_id, handle)


async def find_note_version(connection: Connection, agency_id: str, note_id: str) -> int:
    query = "select version from note where agency_id = $1 and note_id = $2"
    return int(await connection.fetchval(query, agency_id, note_id) or 0)


@router.post("/notes/{note_id}/title", dependencies=[requires("sample:operate")], responses=PROPOSED)
@needs_approval(days=7, revision=find_note_version)
async def title_note(
    agency_id: str, note_id: str, body: NewNote, commands: CommandsDep, mark: Annotated[str, Query()] = ""
) -> Response:
    """Needs a second person."""

    async def handle(uow: UnitOfWork) -> Note:
        if not await find_note_version(uow.connection, agency_id, note_id):
            raise NotFound(f"there is no note {note_id!r}")
        row = await uow.connection.fetchrow(
            """
            update note
            set text = $2, version = version + 1
            where note_id = $1
            returning note_id, text, version
            """,
            note_id,
            body.text + mark,
        )
        audit.record(uow, command="TitleNote", agency_id=agency_id, subject=note_id)
        return Note.model_validate(dict(row or {}))

    return await commands.execute(agency_id, handle)


@router.get("/notes", dependencies=[requires("sample:read")])
async def list_notes(agency_id: str, reader: ReaderDep, page: PageDep) -> Page[Note]:
    async with reader.read(agency_id) as connection:
        rows = await connection.fetch(
            """
            select note_id, text, version
            from note
            where $1::text is null or note_id > $1
            order by note_id
            limit $2
            """,
            page.after,
            page.rows,
        )
    return page.make([Note.model_validate(dict(row)) for row in rows], key=lambda note: note.note_id)


@router.get("/notes/{note_id}", dependencies=[requires("sample:read")])
async def show_note(agency_id: str, note_id: str, reader: ReaderDep, response: Response) -> Note:
    async with reader.read(agency_id) as connection:
        row = await connection.fetchrow(
            """
            select note_id, text, version
            from note
            where note_id = $1
            """,
            note_id,
        )
    if row is None:
        raise NotFound(f"there is no note {note_id!r}")
    response.headers["ETag"] = etag(row["version"])
    return Note.model_validate(dict(row))


@router.put("/uploads", dependencies=[requires("sample:write")])
@body_limit(UPLOAD_LIMIT)
async def upload(agency_id: str, request: Request) -> Size:
    return Size(size=len(await request.body()))


@router.delete("/notes", status_code=204, dependencies=[requires("sample:write")])
async def delete_nothing(agency_id: str, commands: CommandsDep) -> Response:
    async def handle(uow: UnitOfWork) -> None:
        audit.record(uow, command="DeleteNothing", agency_id=agency_id)

    return await commands.execute(agency_id, handle, status_code=204)


FAILURES: dict[str, Exception] = {
    "unforeseen": RuntimeError("the password is hunter2"),
    "lost": ConnectionResetError("10.0.0.7"),
    "locked": asyncpg.LockNotAvailableError("canceling statement due to lock timeout"),
    "retryable": RetryableError("elsewhere"),
}


@router.post("/failures/{kind}", dependencies=[requires("sample:write")])
async def fail(agency_id: str, kind: str, commands: CommandsDep) -> Response:
    async def handle(uow: UnitOfWork) -> Note:
        audit.record(uow, command="Fail", agency_id=agency_id)
        raise FAILURES[kind]

    return await commands.execute(agency_id, handle)


def build(settings: Settings | None = None) -> Service:
    """The sample service."""
    return Service(
        schema=Schema("sample", Path(__file__).parent / "migrations"),
        settings=settings or Settings(environment="sandbox"),
        routers=[router],
    )
