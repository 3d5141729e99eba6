"""Scores of the report's networks, with the shortcut audit: how far traces of sources and file formats explain them.

COVID-CT's classes come from different sources in different file formats. Each score is therefore compared with the
score of a rule that reads only the format, and with the network's score on slices without these traces.
"""

from collections.abc import Mapping

import numpy as np
import torch

from service.model.card import Interval
from service.model.file import Network
from training.data.covid_ct import BATCH, CovidCt, plain_inputs
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.scores import ScoreName, Scores, score, written
from training.report_recipe import THRESHOLD
from training.run.progress import progress
from training.run.record import Record


class HeaderRule(Record):
    """Scores on test of a rule that reads only the file format: COVID if most such training slices were.

    Attributes:
        formats: share of COVID among the training slices of each format and colour mode.
    """

    formats: dict[str, float]
    accuracy: float
    auc: float


class Variant(Record):
    """Scores on test with every slice altered in the same way, and their changes."""

    figures: dict[ScoreName, Interval]
    auc_change: float
    accuracy_change: float


class Audit(Record):
    """The shortcut audit; thresholds are those of the unaltered evaluation."""

    header_rule: HeaderRule
    variants: dict[str, Variant]


class Evaluation(Record):
    """Scores of a network, part of metrics.json.

    Attributes:
        learned: whether the network was trained and the 95 % interval of its AUC on validation lies above chance.
        splits: `val`, which chose the epoch, and `test`.
        audit: on test.
    """

    learned: bool
    splits: dict[str, Scores]
    audit: Audit

    @property
    def reason(self) -> str:
        """The figure that `learned` follows from, as part of a sentence."""
        return f"its AUC on validation is {written(self.splits['val'].figures['auc'])}"


def predict(network: Network, images: torch.Tensor, device: torch.device, title: str) -> torch.Tensor:
    """Run a network, in Python or from a model file, on uint8 (N, 1, S, S) images: probabilities, float32 (N,)."""
    with torch.inference_mode():
        batches = progress(torch.split(images, BATCH), title, "batch")
        return torch.cat([network(batch.to(device))["probability"].cpu() for batch in batches])


def predict_splits(network: Network, data: CovidCt, input_size: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Run a network once on `val`, on `test` and on each alteration of test, by its name: float32 (N,) each."""
    splits = {"val": data.val, "test": data.test}
    splits |= {name: altered(data.test, alter) for name, alter in ALTERATIONS.items()}
    return {
        name: predict(network, plain_inputs(split, input_size), device, f"evaluating {name}")
        for name, split in splits.items()
    }


def evaluate(
    probabilities: Mapping[str, torch.Tensor],
    data: CovidCt,
    seed: int,
    *,
    was_trained: bool = True,
) -> Evaluation:
    """Compute all scores.

    Args:
        probabilities: as from `predict_splits`.
        was_trained: whether the kept epoch is later than 0.
    """
    val = score(probabilities["val"], data.val.labels, THRESHOLD, seed, data.val.patients)
    test = score(probabilities["test"], data.test.labels, THRESHOLD, seed, data.test.patients)
    variants = {}
    for name in [name for name in ALTERATIONS if name in probabilities]:
        figures = score(probabilities[name], data.test.labels, THRESHOLD, seed, data.test.patients).figures
        variants[name] = Variant(
            figures=figures,
            auc_change=figures["auc"].value - test.figures["auc"].value,
            accuracy_change=figures["accuracy"].value - test.figures["accuracy"].value,
        )
    return Evaluation(
        learned=was_trained and val.figures["auc"].low > 0.5,
        splits={"val": val, "test": test},
        audit=Audit(header_rule=header_rule(data, seed), variants=variants),
    )


def header_rule(data: CovidCt, seed: int) -> HeaderRule:
    """Score the test split by file format and colour mode alone."""
    labels: dict[str, list[int]] = {}
    for slice_ in data.train.slices:
        labels.setdefault(slice_.encoding, []).append(slice_.label)
    shares = {encoding: float(np.mean(members)) for encoding, members in sorted(labels.items())}
    prior = data.train.labels.float().mean().item()
    scores = torch.tensor([shares.get(slice_.encoding, prior) for slice_ in data.test.slices])
    figures = score(scores, data.test.labels, 0.5, seed).figures
    return HeaderRule(formats=shares, accuracy=figures["accuracy"].value, auc=figures["auc"].value)
