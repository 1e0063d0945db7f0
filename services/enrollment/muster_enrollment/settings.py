"""The settings of enrollment: the runtime's, and how many seats an agency may ask for."""

from pydantic import Field

from muster_runtime.settings import Settings


class EnrollmentSettings(Settings):
    """What enrollment is told from outside (prefix MUSTER_)."""

    seats_per_head: float = Field(
        default=1.5,
        gt=0,
        description="Seats that an agency may ask for, for each head of it and its sub-agencies. "
        "More than one: contractors hold seats too, and an agency grows.",
    )
