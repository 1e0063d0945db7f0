"""Renders each example with Helm 3 and Helm 4, both built with Go, and compares; `make chart-helm` takes minutes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from infra.chart.generate import CHART
from tests.chart.rendering import EXAMPLES, NAMESPACE, RELEASE, Object, example

KUBERNETES = "1.37.0"

VERSIONS = ("helm.sh/helm/v3/cmd/helm@v3.22.0", "helm.sh/helm/v4/cmd/helm@v4.3.1")


def main(folder: Path) -> None:
    """Build both in a folder unless they are there, and name each object that they render differently."""
    different = []
    for version in VERSIONS:
        helm = built(folder, version)
        for name, values in EXAMPLES.items():
            here = _by_name(_template(helm, values))
            there = _by_name(list(example(name)))
            different += [f"{version}, {name}: {key}" for key in here.keys() | there if here.get(key) != there.get(key)]
            print(f"{version}: {name}, {len(here)} objects")
    sys.exit("\n".join(different) or None)


def program_of(folder: Path, version: str) -> Path:
    """The path of the program of a Helm version."""
    return folder.resolve() / version.split("/")[2] / "helm"


def built(folder: Path, version: str) -> Path:
    """The program of a Helm version; it is built unless it is already there."""
    program = program_of(folder, version)
    if not program.exists():
        go = shutil.which("go")
        if go is None:
            sys.exit("Go is not installed, which builds Helm")
        environment = {**os.environ, "GOBIN": str(program.parent), "GOFLAGS": "-p=1"}
        subprocess.run([go, "install", "-trimpath", version], env=environment, check=True)
    return program


def _template(helm: Path, values: Path) -> list[Object]:
    command = [str(helm), "template", RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", str(values)]
    command += ["--kube-version", KUBERNETES]  # as built here, Helm 3 takes an older one
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [found for found in yaml.safe_load_all(rendered) if found]


def _by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    return {(found["kind"], found["metadata"]["name"]): found for found in objects}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
