"""The SBOM in the other format: an SPDX 2.3 document of what a CycloneDX document lists.

    python -m infra.supply_chain.spdx CYCLONEDX-FILE FILE

The same document gives the same bytes: its time is fixed, and its name is of what it describes.
"""

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from infra.supply_chain import licenses

Document = dict[str, Any]

# Seconds since 1970; the time that SPDX demands says nothing about when the document was made.
_EPOCH = 1754438400

_NAMESPACE = "https://muster.example/spdx"
_RULES = Path(licenses.__file__).with_name("licenses.toml")


def make(document: Document) -> str:
    """The SPDX document of a CycloneDX document, as text."""
    described = document["metadata"]["component"]
    declared = {each.name: each.license for each in licenses.installed(None, licenses.Rules.read(_RULES))}
    packages = [_package(described, {}), *(_package(each, declared) for each in document["components"])]
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    made = {
        "spdxVersion": "SPDX-2.3",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": described["name"],
        "dataLicense": "CC0-1.0",
        "documentNamespace": f"{_NAMESPACE}/{described['name']}-{digest}",
        "creationInfo": {
            "created": f"{datetime.fromtimestamp(_EPOCH, UTC):%Y-%m-%dT%H:%M:%SZ}",
            "creators": ["Tool: muster-supply-chain"],
        },
        "packages": packages,
        "relationships": [
            _relationship("SPDXRef-DOCUMENT", "DESCRIBES", packages[0]["SPDXID"]),
            *(_relationship(packages[0]["SPDXID"], "CONTAINS", each["SPDXID"]) for each in packages[1:]),
        ],
    }
    return json.dumps(made, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _package(component: Document, declared: Mapping[str, str]) -> Document:
    name = component["name"]
    package = {
        "SPDXID": f"SPDXRef-{re.sub(r'[^A-Za-z0-9.-]', '-', component['bom-ref'])}",
        "name": name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": _license(component, declared),
        "copyrightText": "NOASSERTION",
    }
    if "version" in component:
        package["versionInfo"] = component["version"]
    if "purl" in component:
        reference = {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl"}
        package["externalRefs"] = [reference | {"referenceLocator": component["purl"]}]
    return package


def _license(component: Document, declared: Mapping[str, str]) -> str:
    """What a Python package declares. Those of Debian declare it in the copyright files that the image holds."""
    if component.get("purl", "").startswith("pkg:pypi/"):
        return declared.get(canonicalize_name(component["name"]), "NOASSERTION")
    return "NOASSERTION"


def _relationship(of: str, kind: str, to: str) -> Document:
    return {"spdxElementId": of, "relationshipType": kind, "relatedSpdxElement": to}


def _main() -> int:
    parser = argparse.ArgumentParser(description="Write the SPDX document of a CycloneDX document.")
    parser.add_argument("cyclonedx", type=Path)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    arguments.file.write_text(make(json.loads(arguments.cyclonedx.read_text("utf-8"))), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
