"""The command `draw-sources`: all inputs of a first run of `train`, drawn in seconds."""

import argparse
from pathlib import Path
from typing import Final

from training.errors import TrainingError
from training.generated.sources import write_sources
from training.network.weights import write_random_weights
from training.run.progress import say

WEIGHTS_NAME: Final = "vgg19_bn.pth"


def run(options: argparse.Namespace) -> None:
    """Draw the sources and write random weights; a folder that already has them does not change.

    Raises:
        TrainingError: the folder has other files.
    """
    folder: Path = options.folder
    if (folder / WEIGHTS_NAME).is_file():
        say(f"{folder}: the sources are there already")
        return
    if folder.exists() and any(folder.iterdir()):
        raise TrainingError(f"{folder}: the folder has files; pass a new one")
    write_sources(folder)
    write_random_weights(folder / WEIGHTS_NAME)  # last: its presence shows that all files are there
    say(f"written: {folder}; now: python -m training train --config demo")
