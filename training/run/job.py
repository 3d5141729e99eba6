"""Settings of a run, which both recipes share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from training.run.machine import Machine

RecipeT = TypeVar("RecipeT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Job(Generic[RecipeT]):
    """Settings of a run.

    Attributes:
        weights: ImageNet weights in torchvision's layout; None downloads torchvision's.
        run_folder: for checkpoints, from which an interrupted run continues, and for the model.
        version: of the model.
        export_anyway: write model files even if the network learned nothing.
    """

    recipe: RecipeT
    machine: Machine
    weights: Path | None
    run_folder: Path
    version: str = "1.0.0"
    export_anyway: bool = False

    @property
    def models_folder(self) -> Path:
        """Folder for model files, metrics.json, predictions.csv and figures."""
        return self.run_folder / "model"
