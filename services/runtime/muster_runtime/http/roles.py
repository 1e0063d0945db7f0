"""Roles: which scopes they grant, and which claims in the identity provider's tokens grant them. From a TOML file.

The provider decides who has a role; the file says what a role may do. It is read at startup.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from muster_runtime.plain_rules import plain_rule

BREAK_GLASS = "break-glass"

# Anyone who may operate a service may read its audit trail.
_OPERATE, _AUDIT = ":operate", ":audit"

Scope = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]*:[a-z][a-z-]*$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z-]*$")]
Text = Annotated[str, StringConstraints(min_length=1)]

# Claim names, from the outermost inward.
ClaimPath = tuple[str, ...]


class RolesRefused(ValueError):
    """The roles file cannot be used. The message names the file, the key, and the rule."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Role(_Strict):
    """What a role may do, who may have it, and the claims with the values that grant it.

    `holder` says what its token must act for: all agencies ("program"), one or more ("agency"), or either ("any").
    """

    scopes: list[Scope] = Field(min_length=1)
    holder: Literal["program", "agency", "any"]
    granted_by: dict[str, Any] = {}

    @model_validator(mode="after")
    def _grants_are_lists_of_texts(self) -> Self:
        for path, values in _leaves(self.granted_by, ()):
            if not isinstance(values, list) or not values or not all(isinstance(v, str) and v for v in values):
                raise ValueError(f"granted_by.{'.'.join(path)} must be a list of strings")
        return self

    @cached_property
    def grants(self) -> list[tuple[ClaimPath, frozenset[str]]]:
        """Each claim that grants the role, with the values that do."""
        return [(path, frozenset(values)) for path, values in _leaves(self.granted_by, ())]

    def is_granted(self, claims: Mapping[str, Any], *, program: bool) -> bool:
        """Whether the claims grant the role to a token that acts for all agencies (`program`) or for some."""
        if self.holder not in ("any", "program" if program else "agency"):
            return False
        return any(values & _texts(_at(path, claims)) for path, values in self.grants)


class _Claims(_Strict):
    """The claims that name the agencies and that mark a break-glass token; a dot descends into an object."""

    agency: Text = "agency"
    break_glass: Text = "break_glass"


class Roles(_Strict):
    """The roles of a file."""

    roles: dict[Name, Role] = Field(min_length=1)
    claims: _Claims = _Claims()

    @model_validator(mode="after")
    def _break_glass_is_the_programs(self) -> Self:
        role = self.roles.get(BREAK_GLASS)
        if role is not None and (role.holder != "program" or role.granted_by):
            raise ValueError(
                f'roles.{BREAK_GLASS} must have the holder "program" and no granted_by: a claim of its own grants it'
            )
        return self

    @classmethod
    def load(cls, path: str) -> Self:
        """Load the roles from a file, or if `path` is empty, from the runtime's own file. Raises RolesRefused."""
        file = Path(path) if path else files("muster_runtime.http") / "roles.toml"
        try:
            return cls.model_validate(tomllib.loads(file.read_text("utf-8")))
        except OSError as error:
            raise RolesRefused(f"{file}: {error.strerror}") from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise RolesRefused(f"{file}: is not TOML: {error}") from None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise RolesRefused(": ".join(filter(None, (str(file), key, plain_rule(first))))) from None

    @property
    def agency_claim(self) -> str:
        """The name of the claim that says which agencies a token acts for."""
        return self.claims.agency

    @property
    def break_glass_scopes(self) -> frozenset[str]:
        """What a break-glass token may do besides its own scopes."""
        return frozenset(self.roles[BREAK_GLASS].scopes)

    def agency_in(self, claims: Mapping[str, Any]) -> Any:
        """The value of the claim that names the agencies; None if there is none."""
        return _named(self.claims.agency, claims)

    def breaks_glass(self, claims: Mapping[str, Any]) -> bool:
        """Whether the claims mark a break-glass token."""
        return BREAK_GLASS in self.roles and _named(self.claims.break_glass, claims) is True

    def scopes(self, claims: Mapping[str, Any], *, program: bool) -> frozenset[str]:
        """The scopes of all roles that the claims grant to a token for all agencies (`program`) or for some."""
        granted = (role.scopes for role in self.roles.values() if role.is_granted(claims, program=program))
        return frozenset(scope for scopes in granted for scope in scopes)


def with_implied(scopes: Iterable[str]) -> frozenset[str]:
    """The scopes and those that they imply: `x:operate` implies `x:audit`."""
    given = frozenset(scopes)
    return given | {scope.removesuffix(_OPERATE) + _AUDIT for scope in given if scope.endswith(_OPERATE)}


def _leaves(table: Mapping[str, Any], above: ClaimPath) -> Iterator[tuple[ClaimPath, Any]]:
    """Each value in nested tables, with the path of names to it."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*above, name))
        else:
            yield (*above, name), value


def _named(name: str, claims: Mapping[str, Any]) -> Any:
    """A claim by its name. If there is none of that name, each dot in it descends into an object."""
    return claims[name] if name in claims else _at(tuple(name.split(".")), claims)


def _at(path: ClaimPath, claims: Mapping[str, Any]) -> Any:
    found: Any = claims
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _texts(value: Any) -> frozenset[str]:
    """The texts of a claim that is one text or a list."""
    listed = value if isinstance(value, list) else [value]
    return frozenset(each for each in listed if isinstance(each, str))
