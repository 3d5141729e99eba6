"""The manifests of deploy/kubernetes as kubectl renders them."""

import json
import shutil
import subprocess
from functools import cache
from typing import Any, Final, TypeAlias

import pytest
import yaml

from tests.support.processes.server import ROOT

Manifest: TypeAlias = dict[str, Any]

OVERLAYS: Final = ROOT / "deploy" / "kubernetes" / "overlays"
NAMES: Final = sorted(folder.name for folder in OVERLAYS.iterdir() if folder.is_dir())

needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl (Debian: kubernetes-client)")


def rendered(overlay: str) -> list[Manifest]:
    """Render an overlay; skips what the kubectl of this machine is too old for."""
    if overlay == "kserve" and _minor_version() < 21:
        pytest.skip("kubectl 1.20 leaves an empty manifest where a patch deletes one; the overlay kserve needs 1.21")
    return list(yaml.load_all(render(overlay), yaml.CSafeLoader))


def only(overlay: str, kind: str) -> Manifest:
    """Return the only manifest of a kind."""
    (manifest,) = (each for each in rendered(overlay) if each["kind"] == kind)
    return manifest


@cache
def render(overlay: str) -> str:
    """Return what `kubectl kustomize` prints, as YAML."""
    done = subprocess.run(["kubectl", "kustomize", str(OVERLAYS / overlay)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def _minor_version() -> int:
    command = ["kubectl", "version", "--client", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return int(json.loads(done.stdout)["clientVersion"]["minor"].rstrip("+"))
