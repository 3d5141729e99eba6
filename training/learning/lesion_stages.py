"""Stages of a run of the recipe `lesion`."""

from enum import Enum

from training.run.progress import say


class LesionStage(Enum):
    """The stages in their order, with their titles."""

    SMALL_NETWORKS = "the lung finder and the view checker"
    LEFT_OUT_NETWORK = "the network without left-out slices"
    NETWORK = "the network on all slices"
    APPEARANCE = "the appearance probes"
    JUDGEMENT = "predictions for left-out slices, calibration, thresholds"
    TEST = "the only look at test"
    REFUSALS = "refusals"
    EXPORT = "export"
    CHECK = "a check of the files"

    def announce(self) -> None:
        """Print the stage: `3/9 the network on all slices`."""
        say(f"{list(LesionStage).index(self) + 1}/{len(LesionStage)} {self.value}")
