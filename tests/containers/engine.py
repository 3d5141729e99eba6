"""podman with a store of its own, so that a test begins with no image and leaves nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

TOOLS = ("podman", "debootstrap", "runc", "catatonit")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
BASE = "localhost/covid-ct-test-base"

_NOTHING: Mapping[str, str] = MappingProxyType({})

_STORE = """
[storage]
driver = "overlay"
graphroot = "{folder}/store"
runroot = "{folder}/run"
"""
_SETTINGS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Engine:
    """podman and podman-compose in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "storage.conf").write_text(_STORE.format(folder=folder))
        (folder / "containers.conf").write_text(_SETTINGS)
        self._environment = os.environ | {
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "BUILDAH_ISOLATION": "chroot",
            "BUILDAH_FORMAT": "docker",  # the other format has no health check
        }

    def podman(self, *arguments: str, check: bool = True, seconds: float = 1500) -> str:
        """Run podman, and return its output.

        Raises:
            AssertionError: it failed; with what it said.
        """
        return self._run(["podman", *arguments], check, seconds)

    def succeeds(self, *arguments: str) -> bool:
        """Whether podman's exit status is 0."""
        command = ["podman", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, timeout=60).returncode == 0

    def compose(
        self,
        *arguments: str,
        files: list[Path],
        check: bool = True,
        environment: Mapping[str, str] = _NOTHING,
    ) -> str:
        """podman-compose over these files."""
        named = [part for file in files for part in ("--file", str(file))]
        return self._run([sys.executable, "-m", "podman_compose", *named, *arguments], check, 600, environment)

    def build(self, tag: str, dockerfile: Path, context: Path, **arguments: str) -> float:
        """Build an image; the seconds that it took."""
        options = [part for name, value in arguments.items() for part in ("--build-arg", f"{name}={value}")]
        if CERTIFICATES.is_file():
            options += ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        wheels = self.folder / "wheels"
        if wheels.is_dir():
            options += ["--volume", f"{wheels}:/wheels:ro"]
        started = time.monotonic()
        self.podman("build", "--network", "host", *options, "--tag", tag, "--file", str(dockerfile), str(context))
        return time.monotonic() - started

    def size_mb(self, tag: str) -> float:
        """Unpacked, all layers, in units of 10^6 bytes."""
        return float(json.loads(self.podman("image", "inspect", tag))[0]["Size"]) / 1e6

    def make_base(self) -> None:
        """A Debian with Python and nothing else, as `BASE`."""
        root = self.folder / "base"
        packages = "--include=python3,python3-venv,ca-certificates"
        self._run(["debootstrap", "--variant=minbase", packages, "bookworm", str(root)], True, 600)
        for rest in ("var/cache/apt/archives", "usr/share/doc", "usr/share/locale", "usr/share/man"):
            shutil.rmtree(root / rest, ignore_errors=True)
        (root / "var/cache/apt/archives/partial").mkdir(parents=True)
        archive = self.folder / "base.tar"
        self._run(["tar", "-C", str(root), "-cf", str(archive), "."], True, 300)
        self.podman("import", str(archive), BASE)
        archive.unlink()
        shutil.rmtree(root)

    def torch_arguments(self) -> dict[str, str]:
        """Where the CPU image's torch comes from: a wheel among pip's `find-links`, else PyTorch's index."""
        links = Path(os.environ.get("PIP_FIND_LINKS", "/nowhere"))
        wheels = sorted(links.glob("torch-*+cpu-*.whl")) if links.is_dir() else []
        if not wheels:
            return {}
        folder = self.folder / "wheels" / "torch"
        folder.mkdir(parents=True)
        shutil.copy(wheels[-1], folder)
        (folder / "index.html").write_text(f'<a href="{wheels[-1].name.replace("+", "%2B")}">{wheels[-1].name}</a>\n')
        version = re.findall(r"torch-([0-9.]+)\+cpu", wheels[-1].name)[0]
        return {"TORCH_INDEX": "file:///wheels", "TORCH_VERSION": version}

    def remove_everything(self) -> None:
        """Containers, images, volumes, and the store itself."""
        self.podman("rm", "--all", "--force", "--time", "5", check=False)
        self.podman("volume", "prune", "--force", check=False)
        self.podman("rmi", "--all", "--force", check=False)
        self.podman("system", "reset", "--force", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, command: list[str], check: bool, seconds: float, environment: Mapping[str, str] = _NOTHING) -> str:
        environment = {**self._environment, **environment}
        with (self.folder / "last.log").open("w+") as log:
            done = subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=seconds)
            log.seek(0)
            output = log.read()
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{output[-6000:]}"
        return output


@contextmanager
def engine_with_base(folder: Path) -> Iterator[Engine]:
    """An engine whose only image is `BASE`; at the end everything of it is removed."""
    engine = Engine(folder)
    try:
        assert json.loads(engine.podman("images", "--format", "json")) == []
        engine.make_base()
        yield engine
    finally:
        engine.remove_everything()


def missing() -> list[str]:
    """Tools that are not here."""
    return [tool for tool in TOOLS if not shutil.which(tool)] + ([] if os.geteuid() == 0 else ["root, for debootstrap"])
