"""The SBOM: a CycloneDX 1.6 document of everything that the lock pins, and of Muster's own packages.

    python -m infra.supply_chain.sbom make FILE [--lock requirements.lock]
    python -m infra.supply_chain.sbom check FILE [--lock requirements.lock]

The same lock gives the same bytes: the document has no serial number and no time.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from infra.supply_chain.packages import ROOT, Package, locked, own_packages

Document = dict[str, Any]

_PROGRAM = "muster"


def make(lock: Path) -> str:
    """The SBOM of a lock and of Muster's packages, as text."""
    document = _of_lock(lock)
    packages = own_packages()
    components = {component["name"]: _tidied(component) for component in document["components"]}
    components |= {package.name: _component(package) for package in packages}
    document["components"] = [components[name] for name in sorted(components)]
    document["metadata"]["component"] = {"type": "application", "bom-ref": _PROGRAM, "name": _PROGRAM}
    document["dependencies"] = _dependencies(components, packages)
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def validate(text: str) -> None:
    """Raise ValueError where an SBOM does not fit the schema of CycloneDX 1.6."""
    # It takes two seconds, which a check of what is missing need not wait for.
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    if (error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        raise ValueError(f"the SBOM does not fit CycloneDX 1.6: {error}")


def missing(document: Document, lock: str) -> list[str]:
    """What the lock pins, or Muster consists of, and the SBOM lacks: each as name==version."""
    listed = {(canonicalize_name(each["name"]), each.get("version")) for each in document.get("components", [])}
    expected = [*locked(lock).items(), *((package.name, package.version) for package in own_packages())]
    return sorted(f"{name}=={version}" for name, version in expected if (name, version) not in listed)


def _of_lock(lock: Path) -> Document:
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible", "--no-validate"]
    made = subprocess.run([*command, "--sv", "1.6", str(lock)], capture_output=True, text=True, check=False)
    if made.returncode:
        raise ValueError(f"{lock}: {made.stderr.strip()}")
    document: Document = json.loads(made.stdout)
    return document


def _tidied(component: Document) -> Document:
    """A component named by what it is. The generator names it by its line in the lock, and repeats that line."""
    kept = {name: value for name, value in component.items() if name != "description"}
    return kept | {"bom-ref": _purl(canonicalize_name(component["name"]), component["version"])}


def _component(package: Package) -> Document:
    purl = _purl(package.name, package.version)
    return {
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "description": package.description,
        "licenses": [{"license": {"id": package.license}}],
        "purl": purl,
    }


def _dependencies(components: Mapping[str, Document], packages: Sequence[Package]) -> list[Document]:
    """What the program consists of, and what each of its packages declares."""
    references: dict[str, str] = {
        canonicalize_name(name): component["bom-ref"] for name, component in components.items()
    }
    declared = {references[package.name]: sorted(references[name] for name in package.requires) for package in packages}
    graph = {_PROGRAM: sorted(declared)} | {reference: [] for reference in references.values()} | declared
    return [{"ref": ref, "dependsOn": needed} if needed else {"ref": ref} for ref, needed in sorted(graph.items())]


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version}"


def _main() -> int:
    parser = argparse.ArgumentParser(description="Make or check the SBOM.")
    parser.add_argument("action", choices=["make", "check"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    arguments = parser.parse_args()
    if arguments.action == "make":
        arguments.file.parent.mkdir(parents=True, exist_ok=True)
        text = make(arguments.lock)
        validate(text)
        arguments.file.write_text(text, "utf-8")
    document = json.loads(arguments.file.read_text("utf-8"))
    if lacking := missing(document, arguments.lock.read_text("utf-8")):
        print(*(f"{arguments.file} lacks {each}" for each in lacking), sep="\n", file=sys.stderr)
        return 1
    print(f"{arguments.file}: {len(document['components'])} components, CycloneDX 1.6")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
