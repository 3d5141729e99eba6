"""Scores of the report's networks: all probabilities first, then figures that depend on them alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from service.model.card import PROBABILITY_BOUNDS
from service.model.file import Network
from training.data.batches import in_batches, plain_inputs
from training.data.covid_ct import LABELS, CovidCt
from training.evaluation.alterations import ALTERATIONS, altered
from training.evaluation.scores import Scores, score, shares_up_to, written
from training.report.shortcut_audit import Audit, audit_shortcuts
from training.report_recipe import THRESHOLD
from training.run.progress import progress
from training.run.record import Record


@dataclass(frozen=True, slots=True)
class Probabilities:
    """Probabilities of COVID on the CPU, float32 (N,) each; `altered` are those of test by alteration."""

    val: torch.Tensor
    test: torch.Tensor
    altered: dict[str, torch.Tensor]


class Evaluation(Record):
    """Scores of a network, part of metrics.json.

    Attributes:
        probability_shares: share of test probabilities at or below 0.1, 0.2, ... 1.0.
        learned: whether the network was trained and the 95 % interval of its AUC on validation lies above chance.
        splits: `val`, which chose the epoch, and `test`.
        audit: on test.
    """

    probability_shares: tuple[float, ...]
    positive_label: str
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
        batches = progress(in_batches(images), title, "batch")
        return torch.cat([network(batch.to(device))["probability"].cpu() for batch in batches])


def predict_splits(network: Network, data: CovidCt, input_size: int, device: torch.device) -> Probabilities:
    """Run a network, as it will be exported, once on validation, on test and on each alteration of test."""
    splits = {"val": data.val, "test": data.test} | {
        f"test, {name}": altered(data.test, alter) for name, alter in ALTERATIONS.items()
    }
    predicted = {
        name: predict(network, plain_inputs(split, input_size), device, f"evaluating {name}")
        for name, split in splits.items()
    }
    return Probabilities(
        predicted["val"], predicted["test"], {name: predicted[f"test, {name}"] for name in ALTERATIONS}
    )


def evaluate(
    probabilities: Probabilities,
    data: CovidCt,
    seed: int,
    patients: Sequence[str] | None = None,
    *,
    was_trained: bool = True,
) -> Evaluation:
    """Compute all scores.

    Args:
        probabilities, data: to score.
        seed: of the intervals.
        patients: one name a test slice, if they are known.
        was_trained: whether the kept epoch is later than 0.
    """
    val = score(probabilities.val, data.val.labels, THRESHOLD, seed)
    test = score(probabilities.test, data.test.labels, THRESHOLD, seed, patients)
    return Evaluation(
        probability_shares=tuple(shares_up_to(probabilities.test, PROBABILITY_BOUNDS).values()),
        positive_label=LABELS[1],
        learned=was_trained and val.figures["auc"].low > 0.5,
        splits={"val": val, "test": test},
        audit=audit_shortcuts(data, test, probabilities.test, probabilities.altered, seed),
    )
