"""Who the caller is, and the errors that refuse a caller."""

from dataclasses import dataclass

from muster_contracts import is_agency_id
from muster_runtime.errors import NotFound, PermanentError
from muster_runtime.identifiers import EVERY_AGENCY


class Unauthenticated(PermanentError):
    """There is no valid token. For a wrong signature or time, the response gives no details."""

    status = 401
    slug = "unauthenticated"
    title = "A valid bearer token is required"


class Forbidden(PermanentError):
    """The token lacks a required scope."""

    status = 403
    slug = "insufficient-scope"
    title = "The token lacks a required scope"


class ProgramOnly(Forbidden):
    """The route is for program officers, but the token acts for agencies."""

    slug = "program-only"
    title = "This requires a token for all agencies"


class ReasonRequired(PermanentError):
    """A break-glass token was used without a reason."""

    status = 403
    slug = "reason-required"
    title = "This token requires a reason"


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller: the token's subject and scopes, and the agencies that it acts for (only EVERY_AGENCY: the program).

    `break_glass_reason` is why the caller uses a break-glass token; None with any other token.
    """

    actor: str
    scopes: frozenset[str]
    agencies: frozenset[str]
    break_glass_reason: str | None = None

    @property
    def is_program(self) -> bool:
        """Whether the caller acts for all agencies."""
        return EVERY_AGENCY in self.agencies

    @property
    def tenant(self) -> str:
        """A key for the set of agencies, in any order. Each such set is one tenant of the process."""
        return ",".join(sorted(self.agencies))

    def may_act_for(self, agency_id: str) -> bool:
        """Whether an agency is one of the caller's, or the caller acts for all agencies."""
        return self.is_program or agency_id in self.agencies

    def admit(self, agency_id: str) -> None:
        """Raise NotFound if the agency is not the caller's. Other tenants' agencies do not exist for the caller."""
        if not is_agency_or_all(agency_id) or not self.may_act_for(agency_id):
            raise NotFound(f"there is no agency {agency_id[:40]!r}")


def is_agency_or_all(text: str) -> bool:
    """Whether a text has the form of an agency's ID, or is EVERY_AGENCY."""
    return text == EVERY_AGENCY or is_agency_id(text)
