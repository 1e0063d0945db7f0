"""Images of a next release: this release's, with a layer that adds an expanding migration to every service."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

VERSION = "next"

_MIGRATIONS = "opt/muster/lib/python3.11/site-packages/muster_runtime/migrations"
_NAME = "29990101000000_create_upgrade_trial.sql"
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
        _add(layer, f"{_MIGRATIONS}/{_NAME}", _SQL.encode())
    return content.getvalue()


def _read(archive: tarfile.TarFile, name: str) -> Any:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    archive.addfile(member, io.BytesIO(content))
