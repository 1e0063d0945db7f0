"""A running enrollment service with some agencies in its register."""

import pytest

from muster_enrollment.bootstrap import build
from muster_enrollment.settings import EnrollmentSettings
from tests.integration.enrollment.program import REGISTER, START, Program
from tests.support.services import ServiceRunner


@pytest.fixture
async def empty(run_service: ServiceRunner) -> Program:
    """The service with an empty register; its clock is at the program's start."""
    service = await run_service(build, EnrollmentSettings)
    service.clock.move(START)
    return Program(service)


@pytest.fixture
async def program(empty: Program) -> Program:
    """The service with the agencies of REGISTER."""
    await empty.import_register(REGISTER)
    return empty
