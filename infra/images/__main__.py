"""Builds the images and the bundle: `make images` and `make bundle`.

    python -m infra.images build [--fresh-base]
    python -m infra.images bundle

The variables BASE_IMAGE and RUNTIME_IMAGE replace the images to build on; README.md says how.
"""

import argparse
import os
import sys

from infra.images.build import Bases, build
from infra.images.bundle import bundle
from infra.images.tools import BuildFailed


def _main() -> int:
    parser = argparse.ArgumentParser(description="Build the images, or the bundle that installs them offline.")
    parser.add_argument("action", choices=["build", "bundle"])
    parser.add_argument("--fresh-base", action="store_true", help="rebuild the local base from the newest packages")
    arguments = parser.parse_args()
    bases = Bases(os.environ.get("BASE_IMAGE") or None, os.environ.get("RUNTIME_IMAGE") or None)
    try:
        build(bases, fresh_base=arguments.fresh_base)
        if arguments.action == "bundle":
            bundle()
    except BuildFailed as failure:
        print(f"images: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
