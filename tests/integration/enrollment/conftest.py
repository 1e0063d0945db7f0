"""A running enrollment service with some agencies in its register."""

import pytest

from muster_enrollment.bootstrap import build
from muster_enrollment.settings import EnrollmentSettings
from tests.integration.enrollment.programme import REGISTER, START, Programme
from tests.support.services import ServiceRunner


@pytest.fixture
async def empty(run_service: ServiceRunner) -> Programme:
    """The service with nothing in its register; its time stands at the programme's start."""
    service = await run_service(build, EnrollmentSettings)
    service.clock.move(START)
    return Programme(service)


@pytest.fixture
async def programme(empty: Programme) -> Programme:
    """The service with the agencies of REGISTER."""
    await empty.import_register(REGISTER)
    return empty
