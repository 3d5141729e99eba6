"""The model as the device that makes DICOM objects, and their UIDs."""

from dataclasses import dataclass
from typing import Final

from pydicom.uid import generate_uid

MANUFACTURER: Final = "covid-ct"
"""Manufacturer (0008,0070) of every object that is written here."""


@dataclass(frozen=True, slots=True)
class Device:
    """A model in the role of a DICOM device.

    Attributes:
        name, version, sha256: of the model.
        software: version of this package.
    """

    name: str
    version: str
    sha256: str
    software: str

    @property
    def software_versions(self) -> tuple[str, str]:
        """Software Versions (0018,1020): of the model, then of this package."""
        return f"model {self.version}", f"service {self.software}"

    def uid(self, *parts: str) -> str:
        """Derive a UID from the version of the model and `parts`.

        The same parts give the same UID, so an archive that receives a result twice keeps it once.
        """
        return str(generate_uid(entropy_srcs=[MANUFACTURER, self.name, self.version, *parts]))
