"""What the database itself refuses, whatever the handlers do."""

import asyncpg
import pytest

from tests.integration.enrollment.program import Program, enrollment


async def test_an_agency_has_at_most_one_live_enrollment(program: Program) -> None:
    await program.post("NASA", "enrollments", enrollment())
    with pytest.raises(asyncpg.UniqueViolationError, match="enrollment_live"):
        await program.service.admin.execute(
            """
            insert into enrollment
            select (jsonb_populate_record(enrollment, '{"enrollment_id": "enr_2", "number": 2}')).*
            from enrollment
            """
        )
