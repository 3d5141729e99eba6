"""README.md of the models folder: the card's template, filled from metrics.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from training.evaluation.refusals import RefusalShares
from training.evaluation.scores import written
from training.models.run_record import NOT_LEARNED
from training.models.template import fill_template
from training.release.lesion_export import NOT_BETTER_THAN_CHANCE
from training.release.lesion_record import LesionRunRecord

_TEST: Final = {"test": "official labels", "test_corrected": "corrected labels", "test_new_papers": "new papers alone"}
"""Splits of official test that the card shows, with their titles."""

_ALTERATIONS: Final = {
    "reencoded": "re-encoded (grey, 256 px, JPEG quality 75)",
    "masked": "borders blackened, printed marks removed",
    "downscaled": "scaled down to 112 px",
    "upscaled": "scaled up to twice its size",
    "lung_box_only": "everything outside the lungs' box blackened",
}


def card_text(record: LesionRunRecord) -> str:
    """Fill the template from a record."""
    shown = {name: title for name, title in _TEST.items() if name in record.splits}
    patients = {title: record.splits[name].patients for name, title in shown.items()}
    return fill_template(
        Path(__file__).with_name("lesion_card.md"),
        {"interval": written, "two": "{:.2f}".format, "three": "{:.3f}".format},
        record=record,
        recipe=record.config,
        judged=record.judgement,
        lesions=record.judgement.lesions,
        tests={name: f"{title} (n = {record.splits[name].count})" for name, title in shown.items()},
        matrix=record.splits["test"].confusion_matrix,
        patients={title: scores for title, scores in patients.items() if scores is not None},
        alterations=_ALTERATIONS,
        refusals=record.checks,
        altered_refusals=[_altered_row(name, sources) for name, sources in record.checks.altered.items()],
        not_learned=NOT_LEARNED.format(reason=NOT_BETTER_THAN_CHANCE),
    )


def _altered_row(name: str, sources: Mapping[str, RefusalShares]) -> tuple[str, ...]:
    """Return the name of an alteration, its wanted result, the mean refused share and the worst source."""
    refused = {source: shares.refused for source, shares in sources.items()}
    accepted = name.startswith("lung window")
    worst = (max if accepted else min)(refused, key=lambda source: refused[source])
    mean = sum(refused.values()) / len(refused)
    return name, "accepted" if accepted else "refused", f"{mean:.3f}", f"{worst} {refused[worst]:.3f}"
