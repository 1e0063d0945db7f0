"""The settings of enrollment: the runtime's, and how many seats an agency may request."""

from pydantic import Field

from muster_runtime.settings import Settings


class EnrollmentSettings(Settings):
    """The settings of enrollment (prefix MUSTER_)."""

    seats_per_head: float = Field(
        default=1.5,
        gt=0,
        description="How many seats an agency may request per employee, including employees of its sub-agencies. The "
        "default is more than one because contractors hold seats, too, and agencies grow.",
    )
