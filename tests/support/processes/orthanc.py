"""A PACS as a process: Debian's Orthanc with its DICOMweb plugin."""

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tests.support.processes.server import START_SECONDS, free_port

_PLUGIN: Final = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


class Orthanc:
    """A PACS in a folder, which keeps its data from one start to the next."""

    def __init__(self, folder: Path) -> None:
        self.http_port, self.dicom_port = free_port(), free_port()
        self.root = f"http://127.0.0.1:{self.http_port}"
        self.url = f"{self.root}/dicom-web"
        self.log = folder / "orthanc.log"
        self._configuration = folder / "orthanc.json"
        self._configuration.write_text(
            json.dumps(
                {
                    "StorageDirectory": str(folder / "storage"),
                    "IndexDirectory": str(folder / "storage"),
                    "Plugins": [str(_PLUGIN)],
                    "HttpPort": self.http_port,
                    "DicomPort": self.dicom_port,
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
                }
            )
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(["Orthanc", str(self._configuration)], stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.log.read_text()
            with contextlib.suppress(httpx2.TransportError):
                if httpx2.get(f"{self.root}/system").status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError("Orthanc was not ready in time")

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def send(self, folder: Path) -> None:
        """Send all files of a folder by C-STORE."""
        files = map(str, sorted(folder.glob("*.dcm")))
        command = ["storescu", "127.0.0.1", str(self.dicom_port), *files]
        subprocess.run(command, check=True, capture_output=True, timeout=120)

    def instances(self, modality: str) -> list[dict[str, Any]]:
        """Simplified tags of all instances of a modality."""
        query = {"Level": "Instance", "Query": {"Modality": modality}, "Expand": True}
        rows = httpx2.post(f"{self.root}/tools/find", json=query).json()
        return [httpx2.get(f"{self.root}/instances/{instance['ID']}/simplified-tags").json() for instance in rows]

    def files(self, modality: str) -> list[bytes]:
        """Files of all instances of a modality, as they are stored."""
        query = {"Level": "Instance", "Query": {"Modality": modality}}
        rows = httpx2.post(f"{self.root}/tools/find", json=query).json()
        return [httpx2.get(f"{self.root}/instances/{instance}/file").content for instance in rows]


@contextlib.contextmanager
def orthanc(folder: Path) -> Iterator[Orthanc]:
    """A running PACS; the test is skipped where Debian's packages are missing."""
    if shutil.which("Orthanc") is None or not _PLUGIN.exists() or shutil.which("storescu") is None:
        pytest.skip("a PACS is missing; Debian has it in orthanc, orthanc-dicomweb and dcmtk")
    pacs = Orthanc(folder)
    pacs.start()
    try:
        yield pacs
    finally:
        pacs.kill()
