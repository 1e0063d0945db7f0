"""The licenses of all that is installed: each must be allowed by licenses.toml.

    python -m infra.supply_chain.licenses [--list] [--path FOLDER …] [--rules licenses.toml]

A package says its license as an SPDX expression, or by a classifier. Where it says neither clearly, licenses.toml
says it, with where it was read. Of a choice (OR), one license must be allowed; of a sum (AND), all.
"""

import argparse
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from boolean.boolean import ParseError
from license_expression import AND, OR, ExpressionError, LicenseSymbol, LicenseWithExceptionSymbol, get_spdx_licensing
from packaging.utils import canonicalize_name

_CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
}

_spdx = get_spdx_licensing()


@dataclass(frozen=True, slots=True)
class Rules:
    """`stated`: the licenses of packages that do not say them clearly; `excepted`: those that one package may have."""

    allowed: frozenset[str]
    stated: Mapping[str, str]
    excepted: Mapping[str, str]

    @classmethod
    def read(cls, file: Path) -> "Rules":
        """The rules in a file. Raises ValueError where an entry has no license or no reason."""
        data = tomllib.loads(file.read_text("utf-8"))
        for section in ("stated", "excepted"):
            for name, entry in data.get(section, {}).items():
                if not entry.get("license") or not entry.get("reason"):
                    raise ValueError(f"{file}: {section}.{name} needs a license and a reason")
        return cls(
            frozenset(data["allowed"]),
            {name: entry["license"] for name, entry in data.get("stated", {}).items()},
            {name: entry["license"] for name, entry in data.get("excepted", {}).items()},
        )


@dataclass(frozen=True, slots=True)
class Licensed:
    """An installed package. `license` is an SPDX expression, or what it says instead."""

    name: str
    version: str
    license: str


def installed(path: Sequence[str] | None, rules: Rules) -> list[Licensed]:
    """What is installed on a path, by default the interpreter's own."""
    found = distributions() if path is None else distributions(path=list(path))
    every = {canonicalize_name(each.metadata["Name"]): each for each in found}
    return [Licensed(name, every[name].version, _license(name, every[name], rules)) for name in sorted(every)]


def faults(packages: Iterable[Licensed], rules: Rules) -> Iterator[str]:
    """Each package whose license is not allowed, and each entry of the rules that nothing needs any more."""
    by_name = {package.name: package for package in packages}
    for package in by_name.values():
        if rules.excepted.get(package.name) != package.license and not _is_allowed(package.license, rules.allowed):
            yield f"{package.name} {package.version}: {package.license} is not an allowed license"
    for name in sorted({*rules.stated, *rules.excepted} - by_name.keys()):
        yield f"licenses.toml: {name} is not installed; remove its entry"
    for name, license_ in rules.excepted.items():
        if name in by_name and by_name[name].license != license_:
            yield f"licenses.toml: {name} has {by_name[name].license}, not {license_}"


def _license(name: str, distribution: Distribution, rules: Rules) -> str:
    metadata = distribution.metadata
    if name in rules.stated:
        return rules.stated[name]
    for said in (metadata["License-Expression"], metadata["License"]):
        if said and _is_spdx(said):
            return str(said)
    named = [each for each in metadata.get_all("Classifier", []) if each.startswith("License :: OSI Approved :: ")]
    if named and all(each in _CLASSIFIERS for each in named):
        return " AND ".join(sorted(_CLASSIFIERS[each] for each in named))
    return (metadata["License"] or "; ".join(named) or "no license").strip().splitlines()[0]


def _is_spdx(text: str) -> bool:
    try:
        _spdx.parse(text, validate=True, strict=True)
    except (ExpressionError, ParseError):
        return False
    return True


def _is_allowed(expression: str, allowed: frozenset[str]) -> bool:
    return _is_spdx(expression) and _satisfies(_spdx.parse(expression), allowed)


def _satisfies(part: object, allowed: frozenset[str]) -> bool:
    match part:
        case OR():
            return any(_satisfies(each, allowed) for each in part.args)
        case AND():
            return all(_satisfies(each, allowed) for each in part.args)
        case LicenseWithExceptionSymbol():
            return str(part) in allowed
        case LicenseSymbol():
            return part.key in allowed
    return False


def _main() -> int:
    parser = argparse.ArgumentParser(description="Check the licenses of all that is installed.")
    parser.add_argument("--list", action="store_true", help="print each package with its license")
    parser.add_argument("--path", nargs="+", help="folders to look at, instead of the interpreter's own")
    parser.add_argument("--rules", type=Path, default=Path(__file__).with_name("licenses.toml"))
    arguments = parser.parse_args()
    rules = Rules.read(arguments.rules)
    packages = installed(arguments.path, rules)
    if arguments.list:
        print(*(f"{each.name} {each.version}: {each.license}" for each in packages), sep="\n")
    if found := list(faults(packages, rules)):
        print(*found, sep="\n", file=sys.stderr)
        return 1
    print(f"{len(packages)} packages, each with an allowed license")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
