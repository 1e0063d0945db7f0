"""Images of a next release: this release's, with a layer that adds an expanding migration to every service.

The layer also has the operator's table of releases, with the next one.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from muster_contracts import SERVICES
from muster_operator.releases import TABLE, read_releases

VERSION = "next"

_HEAD = "29990101000000"
_PACKAGES = "opt/muster/lib/python3.11/site-packages"
_MIGRATION = f"{_PACKAGES}/muster_runtime/migrations/{_HEAD}_create_upgrade_trial.sql"
_RELEASES = f"{_PACKAGES}/muster_operator/releases.toml"
_SQL = """-- muster: expand
-- migrate:up
create table upgrade_trial (
    id bigint primary key
);

-- migrate:down
drop table upgrade_trial;
"""


def make(archive: Path, new: Path) -> None:
    """Add the layer to an archive's only image; write the result, tagged VERSION, as a `docker save` archive."""
    layer = _layer()
    with tarfile.open(archive) as old, tarfile.open(new, "w") as written:
        (image,) = json.loads(_read(old, "manifest.json"))
        config = json.loads(_read(old, image["Config"]))
        config["rootfs"]["diff_ids"].append(f"sha256:{hashlib.sha256(layer).hexdigest()}")
        config.setdefault("history", []).append({"created_by": "a migration more"})
        for name in dict.fromkeys(image["Layers"]):
            member = old.getmember(name)
            written.addfile(member, old.extractfile(member))
        (tag,) = image["RepoTags"]
        manifest = {
            "Config": "config.json",
            "RepoTags": [f"{tag.rpartition(':')[0]}:{VERSION}"],
            "Layers": [*image["Layers"], "next.tar"],
        }
        _add(written, "next.tar", layer)
        _add(written, "config.json", json.dumps(config).encode())
        _add(written, "manifest.json", json.dumps([manifest]).encode())


def _layer() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as layer:
        _add(layer, _MIGRATION, _SQL.encode())
        _add(layer, _RELEASES, releases().encode())
    return content.getvalue()


def releases() -> str:
    """This release's releases.toml, with the next one, which needs no more than this one does."""
    present = list(read_releases().values())[-1]
    tables = [
        f'["{VERSION}".{service}]\nschema_min = "{present[service].schema_min}"\nschema_head = "{_HEAD}"\n'
        for service in SERVICES
    ]
    return "\n".join([TABLE.read_text("utf-8"), *tables])


def _read(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))
