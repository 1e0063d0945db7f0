"""An image's SBOMs, CycloneDX and SPDX: the packages found in it, with the lock's hashes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.utils import canonicalize_name

from infra.images.archive import Archived
from infra.images.contents import Contents, SystemPackage
from infra.images.tools import BuildFailed
from infra.supply_chain import sbom, spdx
from infra.supply_chain.packages import ROOT

Document = dict[str, Any]


def write_sboms(name: str, archived: Archived, folder: Path) -> None:
    """Write an image's SBOMs to `NAME.cdx.json` and `NAME.spdx.json` in a folder.

    Raises BuildFailed if the image has a Python package that requirements.lock does not pin.
    """
    document = _cyclonedx(name, archived)
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    sbom.validate(text)
    (folder / f"{name}.cdx.json").write_text(text, "utf-8")
    (folder / f"{name}.spdx.json").write_text(spdx.make(document), "utf-8")


def _cyclonedx(name: str, archived: Archived) -> Document:
    python, system = Contents(archived.file).packages()
    document: Document = json.loads(sbom.make(ROOT / "requirements.lock"))
    components = [each for each in document["components"] if _is_in(each, python)]
    if foreign := python.keys() - {canonicalize_name(each["name"]) for each in components}:
        raise BuildFailed(f"{name} has packages that requirements.lock does not pin: {', '.join(sorted(foreign))}")
    components.extend(_of_system(package) for package in system)
    image = f"pkg:oci/{name}@{quote(archived.digest, safe='')}"
    references = {each["bom-ref"] for each in components}
    graph = [
        {"ref": each["ref"], "dependsOn": [ref for ref in each.get("dependsOn", []) if ref in references]}
        for each in document["dependencies"]
        if each["ref"] in references
    ]
    graph += [{"ref": each["bom-ref"]} for each in components if each["purl"].startswith("pkg:deb/")]
    document["components"] = components
    document["metadata"]["component"] = {
        "type": "container",
        "bom-ref": image,
        "name": f"muster/{name}",
        "version": archived.digest,
        "purl": image,
    }
    document["dependencies"] = [{"ref": image, "dependsOn": sorted(references)}, *graph]
    return document


def _is_in(component: Document, python: Mapping[str, str]) -> bool:
    version: str = component["version"]
    return python.get(canonicalize_name(component["name"])) == version


def _of_system(package: SystemPackage) -> Document:
    version, architecture = quote(package.version, safe=""), package.architecture
    purl = f"pkg:deb/debian/{quote(package.name, safe='')}@{version}?arch={architecture}&distro=debian-12"
    return {"type": "library", "bom-ref": purl, "name": package.name, "version": package.version, "purl": purl}
