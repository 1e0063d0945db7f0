"""What a token allows: its own scopes, those of its roles, the agencies that it acts for, and break-glass."""

from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import KeySet, OKPKey

from muster_runtime.database.schema import Schema
from muster_runtime.errors import NotFound
from muster_runtime.http.identity import Identity, ReasonRequired, Unauthenticated
from muster_runtime.http.roles import Roles, RolesRefused
from muster_runtime.process.running import running
from muster_runtime.process.start_checks import StartRefused
from muster_runtime.service import Service
from muster_runtime.settings import Settings
from tests.support.tokens import ISSUER, at, claims, signed, verifier_of

REASON = "invoices must go out before the fiscal year ends"

FILE = """
[claims]
agency = "realm.agency"
break_glass = "https://example.gov/break_glass"

[roles.reader]
holder = "any"
scopes = ["sample:read"]
granted_by.groups = ["readers", "everyone"]
granted_by.realm_access.roles = ["reader"]
granted_by."https://example.gov/roles" = ["reader"]

[roles.officer]
holder = "program"
scopes = ["sample:operate"]
granted_by.groups = ["officers"]

[roles.clerk]
holder = "agency"
scopes = ["sample:write"]
granted_by.groups = ["clerks"]

[roles.break-glass]
holder = "program"
scopes = ["sample:mend"]
"""


@pytest.fixture
def key() -> OKPKey:
    return OKPKey.generate_key("Ed25519", auto_kid=True)


class Asker:
    """Asks who the caller of a token is, under a file of roles."""

    def __init__(self, key: OKPKey, directory: Path, roles: str) -> None:
        self._key = key
        file = directory / "roles.toml"
        file.write_text(roles)
        self._verifier = verifier_of(KeySet([key]).as_dict(private=False), directory, str(file) if roles else "")

    async def __call__(self, reason: str | None = None, **changes: Any) -> Identity:
        return await self._verifier.verify(signed(self._key, claims(**changes)), reason)


@pytest.fixture
def identity_of(key: OKPKey, tmp_path: Path) -> Asker:
    """With the roles that come with the runtime."""
    return Asker(key, tmp_path, "")


@pytest.fixture
def own_identity_of(key: OKPKey, tmp_path: Path) -> Asker:
    """With the roles of FILE."""
    return Asker(key, tmp_path, FILE)


async def test_a_token_for_all_agencies_is_an_operators(identity_of: Asker) -> None:
    identity = await identity_of(agency="*")
    assert (identity.is_program, identity.tenant) == (True, "*")
    identity.admit("NASA")
    identity.admit("*")
    with pytest.raises(NotFound):
        identity.admit("NASA,DOE")  # nobody names two agencies as one


@pytest.mark.parametrize("agency_id", ["DOE", "*", "NASA,NIH", "NIH,NASA", "", "nasa", "NASA\n", "\0"])
async def test_another_agency_is_not_found(identity_of: Asker, agency_id: str) -> None:
    for agency in ("NASA", ["NIH", "NASA"]):
        identity = await identity_of(agency=agency)
        identity.admit("NASA")
        with pytest.raises(NotFound):
            identity.admit(agency_id)


async def test_a_department_acts_for_its_bureaus_in_any_order_and_each_once(identity_of: Asker) -> None:
    identity = await identity_of(agency=["NIH", "HHS", "NIH", "FDA"])
    assert identity.agencies == {"HHS", "NIH", "FDA"}
    assert identity.tenant == (await identity_of(agency=["FDA", "NIH", "HHS"])).tenant == "FDA,HHS,NIH"
    assert not identity.is_program


async def test_a_token_acts_for_fifty_agencies_at_most(identity_of: Asker) -> None:
    fifty = [f"A{number}" for number in range(50)]
    assert len((await identity_of(agency=[*fifty, "A0"])).agencies) == 50
    with pytest.raises(Unauthenticated, match=r"names 51 agencies: .* at most 50"):
        await identity_of(agency=[*fifty, "A50"])


@pytest.mark.parametrize(
    ("granting", "role"),
    [
        ({"groups": ["readers"]}, "reader"),
        ({"groups": "everyone"}, "reader"),
        ({"groups": ["others", "everyone"]}, "reader"),
        ({"realm_access": {"roles": ["reader"]}}, "reader"),
        ({"https://example.gov/roles": ["reader"]}, "reader"),
        ({"groups": ["reader"]}, None),
        ({"groups": {"readers": True}}, None),
        ({"groups": [["readers"], 7, None]}, None),
        ({"groups": "readers everyone"}, None),
        ({"realm_access": ["reader"]}, None),
        ({"realm_access.roles": ["reader"]}, None),
        ({"roles": ["reader"]}, None),
        ({}, None),
    ],
    ids=str,
)
async def test_a_claims_value_grants_a_role(own_identity_of: Asker, granting: dict[str, Any], role: str | None) -> None:
    identity = await own_identity_of(scope=None, agency=None, realm={"agency": "NASA"}, **granting)
    assert identity.scopes == ({"sample:read"} if role else set())


async def test_a_role_is_granted_only_to_its_holders(own_identity_of: Asker) -> None:
    groups = ["readers", "officers", "clerks"]
    officer = await own_identity_of(scope="a:b", realm={"agency": "*"}, groups=groups)
    assert officer.scopes == {"a:b", "sample:read", "sample:operate", "sample:audit"}
    clerk = await own_identity_of(scope=None, realm={"agency": ["NASA", "NIH"]}, groups=groups)
    assert clerk.scopes == {"sample:read", "sample:write"}


async def test_whoever_operates_a_service_reads_its_audit_trail(identity_of: Asker) -> None:
    assert (await identity_of(scope="sample:operate")).scopes == {"sample:operate", "sample:audit"}


BREAKING = {"agency": "*", "break_glass": True, "iat": at(), "exp": at(minutes=59), "scope": None}


async def test_break_glass_grants_its_scopes_with_a_reason(identity_of: Asker) -> None:
    identity = await identity_of(REASON, **BREAKING)
    assert identity.break_glass_reason == REASON
    assert {"enrollment:authorize", "billing:receive", "notify:audit"} <= identity.scopes
    assert (await identity_of(REASON, agency="*")).break_glass_reason is None  # a header alone breaks nothing


@pytest.mark.parametrize(
    "reason", [None, "", "too short", "x" * 501, "a tab\tis no reason", "ten times é", "for ada@nasa.gov"], ids=str
)
async def test_break_glass_needs_a_reason_even_for_what_the_token_may_anyway(
    identity_of: Asker, reason: str | None
) -> None:
    with pytest.raises(ReasonRequired, match="Muster-Reason"):
        await identity_of(reason, **{**BREAKING, "scope": "sample:read"})


@pytest.mark.parametrize(
    "changes",
    [
        {"agency": "NASA"},
        {"agency": ["NASA", "NIH"]},
        pytest.param({"exp": at(hours=2)}, id="more than an hour"),
        {"iat": None},
    ],
    ids=str,
)
async def test_break_glass_is_only_for_the_program_and_brief(identity_of: Asker, changes: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated, match="break-glass"):
        await identity_of(REASON, **{**BREAKING, **changes})


@pytest.mark.parametrize("value", ["true", 1, [True], {"": True}, False])
async def test_nothing_but_true_breaks_glass(identity_of: Asker, value: object) -> None:
    identity = await identity_of(REASON, **{**BREAKING, "break_glass": value})
    assert (identity.scopes, identity.break_glass_reason) == (frozenset(), None)


async def test_the_break_glass_claim_can_have_another_name(own_identity_of: Asker) -> None:
    own = {**BREAKING, "realm": {"agency": "*"}}
    assert (await own_identity_of(REASON, **own)).scopes == set()
    own["https://example.gov/break_glass"] = True
    assert (await own_identity_of(REASON, **own)).scopes == {"sample:mend"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("[claims]", "[claim]"), "claim: must be left out"),
        (('holder = "any"', 'holder = "anyone"'), "roles.reader.holder: must be 'program', 'agency' or 'any'"),
        (('holder = "any"\n', ""), "roles.reader.holder: is required"),
        (('["sample:read"]', '["sample"]'), "roles.reader.scopes.0: must match the pattern"),
        (('["sample:read"]', "[]"), "roles.reader.scopes: must not be empty"),
        (('["officers"]', '"officers"'), "roles.officer: granted_by.groups must be a list of strings"),
        (("[roles.clerk]", "[roles.Clerk]"), "roles.Clerk"),
        (('holder = "program"\nscopes = ["sample:mend"]', 'holder = "any"\nscopes = ["sample:mend"]'), "break-glass"),
        (('scopes = ["sample:mend"]', 'scopes = ["sample:mend"]\ngranted_by.groups = ["x"]'), "no granted_by"),
        (("[roles.officer]", "[roles.reader]"), "is not TOML"),
        (('"sample:write"', "sample:write"), "is not TOML"),
    ],
    ids=str,
)
def test_a_wrong_file_is_refused_with_its_name_the_key_and_the_rule(
    tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(FILE)
    assert Roles.load(str(file))
    assert change[0] in FILE
    file.write_text(FILE.replace(*change))
    with pytest.raises(RolesRefused) as refused:
        Roles.load(str(file))
    assert str(refused.value).startswith(f"{file}: ")
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"oidc_issuer": ISSUER, "roles_file": "/none/roles.toml"},
            "MUSTER_ROLES_FILE: /none/roles.toml: No such file",
        ),
        ({"oidc_issuer": ""}, "MUSTER_OIDC_ISSUER and MUSTER_OIDC_AUDIENCE must be set"),
        ({"oidc_issuer": "urn:muster:sandbox"}, "MUSTER_OIDC_JWKS must be set"),
    ],
)
async def test_a_process_that_could_admit_nobody_does_not_start(settings: dict[str, Any], says: str) -> None:
    service = Service(Schema("sample", Path()), Settings(environment="sandbox", **settings))
    with pytest.raises(StartRefused, match=says):
        async with running(service):
            pass


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RolesRefused, match="No such file"):
        Roles.load(str(tmp_path / "none.toml"))
