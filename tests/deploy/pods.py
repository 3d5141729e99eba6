"""Pods of the overlays without a control plane: `podman kube play`, and what a kubelet does with their probes.

Debian's podman (4.3) knows no Secrets and no pod network that every sandbox allows. So the keys are a folder of the
host, and each pod listens on its own port of the host; everything else is played as kubectl renders it.
"""

import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.containers.engine import Engine
from tests.deploy.kustomize import Manifest
from tests.support.processes.server import free_port


class Pod:
    """A running pod.

    Args:
        engine: of the images.
        name: of the pod.
        manifests: with one Deployment and its ConfigMap; changed.
        keys: the folder in place of the Secret.
        image: of the service, if not the manifest's.
    """

    def __init__(self, engine: Engine, name: str, manifests: list[Manifest], keys: Path, image: str = "") -> None:
        self._engine = engine
        self.port = free_port()
        deployment = next(each for each in manifests if each["kind"] == "Deployment")
        settings = next(each for each in manifests if each["kind"] == "ConfigMap")
        deployment["metadata"]["name"] = name
        settings["data"]["COVIDCT_PORT"] = str(self.port)
        self.spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
        (service,) = self.spec["containers"]
        service["image"] = image or service["image"]
        del service["ports"]  # podman publishes them, which the host's network cannot
        self.spec["hostNetwork"] = True
        self.spec["restartPolicy"] = "OnFailure"  # with Always, podman 4.3 starts a finished init container again
        self._probe = service["readinessProbe"]
        for volume in self.spec["volumes"]:
            if volume.pop("secret", None):
                volume["hostPath"] = {"path": str(keys), "type": "Directory"}
        file = engine.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump_all([settings, deployment]))
        played = engine.podman("kube", "play", str(file))
        (self.name,) = re.findall(r"^Pod:\n(\w+)$", played, re.MULTILINE)
        self._container = re.findall(r"^\w{64}$", played, re.MULTILINE)[-1]  # after the pod's own and init containers

    @property
    def url(self) -> str:
        """Address of the service in it."""
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Ask its readiness probe once."""
        asked = self._probe["httpGet"]
        headers = {header["name"]: header["value"] for header in asked["httpHeaders"]}
        try:
            answer = httpx2.get(self.url + asked["path"], headers=headers, timeout=self._probe["timeoutSeconds"])
        except httpx2.TransportError:
            return False
        return answer.status_code == 200

    def watch(self, stopped: threading.Event) -> "Readiness":
        """Watch it like a kubelet does."""
        return Readiness(self, self._probe, stopped)

    def inside(self, *command: str, check: bool = True) -> str:
        """Run a command in the service's container."""
        return self._engine.podman("exec", self._container, *command, check=check)

    def log(self) -> str:
        """Return what the service has logged."""
        return self._engine.podman("logs", self._container, check=False)

    def inspect(self, template: str) -> str:
        """Return a detail of the service's container."""
        return self._engine.podman("inspect", "--format", template, self._container).strip()

    def stop(self) -> None:
        """End it like a kubelet does: SIGTERM, then SIGKILL after the pod's grace period."""
        seconds = self.spec["terminationGracePeriodSeconds"]
        self._engine.podman("pod", "stop", "--time", str(seconds), self.name)
        self.remove()

    def kill(self) -> float:
        """End the service's process at once, and return when."""
        process = int(self.inspect("{{.State.Pid}}"))
        os.kill(process, signal.SIGKILL)
        return time.time()

    def remove(self) -> None:
        """Remove what is left of it."""
        self._engine.podman("pod", "rm", "--force", self.name, check=False)


class Readiness(threading.Thread):
    """Asks a pod's readiness probe; `ready` changes after as many failures as the manifest allows."""

    def __init__(self, pod: Pod, probe: dict[str, Any], stopped: threading.Event) -> None:
        super().__init__(daemon=True)
        self.pod = pod
        self.ready = False
        self._probe = probe
        self._stopped = stopped
        self.start()

    def run(self) -> None:
        """Ask until stopped."""
        failures = 0
        while not self._stopped.wait(self._probe["periodSeconds"]):
            failures = 0 if self.pod.is_ready() else failures + 1
            if not failures or failures >= self._probe["failureThreshold"]:
                self.ready = not failures
