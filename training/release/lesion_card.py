"""README.md of the models folder: the card's template, filled from metrics.json."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template
from typing import Final, get_args

from service.model.card import AnswerName, CheckName
from training.evaluation.refusals import RefusalShares
from training.evaluation.scores import written
from training.release.lesion_export import NOT_BETTER_THAN_CHANCE
from training.release.lesion_record import LesionRunRecord
from training.release.run_record import NOT_LEARNED
from training.run.atomic_write import write_text

CARD_NAME: Final = "README.md"

_TEMPLATE: Final = Path(__file__).with_name("lesion_card.md")

_TEST: Final = {"test": "official labels", "test_corrected": "corrected labels", "test_new_papers": "new papers alone"}
"""Splits of official test that the card shows, with their titles."""

_BY_PATIENT: Final = ("accuracy", "sensitivity", "specificity", "auc")

_ALTERED: Final = {
    "reencoded": "re-encoded (grey, 256 px, JPEG quality 75)",
    "masked": "borders blackened, printed marks removed",
    "downscaled": "scaled down to 112 px",
    "upscaled": "scaled up to twice its size",
    "lung_box_only": "everything outside the lungs' box blackened",
}


def write_card(folder: Path, record: LesionRunRecord) -> None:
    """Write the card of a run into a folder."""
    write_text(folder / CARD_NAME, card_text(record))


def card_text(record: LesionRunRecord) -> str:
    """Fill the template from a record."""
    parts = _origin(record) | _left_out(record) | _thresholds(record) | _test(record) | _refusals(record)
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(parts)


def _rows(rows: Iterable[Iterable[object]]) -> str:
    return "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)


def _origin(record: LesionRunRecord) -> dict[str, str]:
    recipe = record.config
    hours = sum(record.wall_time_seconds.values()) / 3600
    return {
        "name": record.model.name,
        "warning": "" if record.learned else f"> **{NOT_LEARNED.format(reason=NOT_BETTER_THAN_CHANCE)}**\n",
        "version": record.model.version,
        "files": " and ".join(f"`{file.name}`" for file in record.files) or "none",
        "box": f"{recipe['box_height']} x {recipe['box_width']}",
        "weights": f"ImageNet VGG-19 (Simonyan & Zisserman, CC BY 4.0), {record.model.weights}",
        "frozen": str(recipe["frozen_layers"]),
        "left_out_steps": f"{recipe['left_out_steps']:,}",
        "steps": f"{recipe['steps']:,}",
        "batch": str(recipe["batch_size"]),
        "machine": record.machine,
        "hours": f"{hours:.1f} hours in all",
        "command": record.command or "python -m training train",
        "commit": record.git_commit[:7],
        "date": (record.date or "")[:10],
        "sources": _rows((name, source.count) for name, source in record.data.items() if not name.endswith(" test")),
        "agreement": _rows(
            (
                f"`{file.name}`",
                f"{file.bytes / 1e6:.1f} MB",
                f"{record.agreement[file.name].auc:.3f}",
                f"{record.agreement[file.name].decisions_equal:.3f}",
                f"{record.agreement[file.name].largest_difference:.4f}",
            )
            for file in record.files
        ),
    }


def _left_out(record: LesionRunRecord) -> dict[str, str]:
    judged = record.judgement
    lesions = judged.lesions
    correlation = lesions.involvement_spearman
    return {
        "left_out": _rows(
            (
                *(name, f"{source.count} ({source.positives}), {source.groups}"),
                written(source.figures["auc"]),
                f"{source.nested.threshold if source.nested else judged.threshold:.2f}",
                written(source.nested.rates.sensitivity if source.nested else source.figures["sensitivity"]),
                written(source.nested.rates.specificity if source.nested else source.figures["specificity"]),
                written(source.figures["calibration_error"]),
            )
            for name, source in judged.sources.items()
        ),
        "default_threshold": f"{judged.threshold:.2f}",
        "alone": _rows(
            (name, negatives, *(f"{aucs[answer]:.3f}" for answer in get_args(AnswerName)))
            for name, source in judged.sources.items()
            for negatives, aucs in source.answers.items()
        ),
        "clear": _rows(
            (name, clear.count, f"{clear.mean_probability:.3f}", f"{clear.mean_lesion_probability:.3f}")
            for name, clear in judged.clear.items()
        ),
        "inside": _rows((name, f"{share:.3f}") for name, share in judged.strongest_inside_lung.items()),
        "mask_slices": str(lesions.slices + lesions.without_lungs),
        "without_lungs": str(lesions.without_lungs),
        "lesion_slices": str(lesions.slices),
        "with_lesion": str(lesions.with_lesion),
        "lesions": _rows(
            [
                (
                    *(f"{lesions.cell_auc:.3f}", f"{lesions.dice:.3f}"),
                    "-" if correlation is None else f"{correlation:.3f}",
                    *(f"{lesions.involvement_error:.3f}", f"{lesions.strongest_inside_lung:.3f}"),
                )
            ]
        ),
    }


def _thresholds(record: LesionRunRecord) -> dict[str, str]:
    points = record.judgement.operating_points
    return {
        "points": _rows(
            (
                *(name, point.purpose, f"{point.threshold:.2f}", f"{point.lesion_threshold:.2f}"),
                *(f"{point.sensitivity:.3f}", f"{point.specificity:.3f}"),
            )
            for name, point in points.items()
        ),
        "rules": "\n".join(f"- `{name}`: {point.rule_with_range}." for name, point in points.items()),
        "rates": _rows(
            (name, source, f"{negatives} ({rates.negatives})", written(rates.sensitivity), written(rates.specificity))
            for name, point in points.items()
            for source, parts in point.sources.items()
            for negatives, rates in parts.items()
        ),
        "calibrations": _rows(
            (f"`{name}`", f"{platt.slope:.3f}", f"{platt.offset:.3f}", platt.rule)
            for name, platt in record.judgement.calibrations.items()
        ),
    }


def _test(record: LesionRunRecord) -> dict[str, str]:
    shown = {name: title for name, title in _TEST.items() if name in record.splits}
    titles = [f"{title} (n = {record.splits[name].count})" for name, title in shown.items()]
    rows = [
        (name, *(written(record.splits[split].figures[name]) for split in shown))
        for name in record.splits["test"].figures
    ]
    matrix = record.splits["test"].confusion_matrix
    return {
        "test": _rows([("", *titles), ("---",) * (1 + len(titles)), *rows]),
        "confusion": (
            f"{matrix.true_positives} true and {matrix.false_positives} false positives, {matrix.true_negatives} true "
            f"and {matrix.false_negatives} false negatives"
        ),
        "test_error": written(record.test_calibration_error),
        "patients": _by_patient(record, shown),
        "altered": _rows(
            (
                _ALTERED.get(name, name),
                f"{altered.accuracy:.3f} ({altered.accuracy_change:+.3f})",
                f"{altered.auc:.3f} ({altered.auc_change:+.3f})",
            )
            for name, altered in record.altered.items()
        ),
    }


def _by_patient(record: LesionRunRecord, shown: Mapping[str, str]) -> str:
    patients = {title: record.splits[name].patients for name, title in shown.items()}
    known = {title: scores for title, scores in patients.items() if scores is not None}
    if not known:
        return "The patients of these slices are not known, so the intervals are too narrow."
    rows = [(name, *(written(scores.figures[name]) for scores in known.values())) for name in _BY_PATIENT]
    count = next(iter(known.values())).count
    head = f"With one score a patient, the mean over the patient's slices ({count} patients of test):\n\n"
    return head + _rows([("by patient", *known), ("---",) * (1 + len(known)), *rows])


def _refusals(record: LesionRunRecord) -> dict[str, str]:
    refusals = record.checks
    names = tuple(refusals.thresholds)
    tables = [
        _rows(
            [
                (title, "number", "refused", *names),
                ("---",) * (3 + len(names)),
                *((name, shares.count, *_cells(shares, names)) for name, shares in sets.items()),
            ]
        )
        for title, sets in (
            ("chest slices, which should be accepted", refusals.slices),
            ("other pictures, which should be refused", refusals.others),
        )
    ]
    return {
        "check_thresholds": ", ".join(f"`{name}` {threshold:g}" for name, threshold in refusals.thresholds.items()),
        "check_rule": refusals.rule,
        "refused": "\n\n".join(tables),
        "refused_altered": _rows(_altered_row(name, sources) for name, sources in refusals.altered.items()),
    }


def _cells(shares: RefusalShares, names: tuple[CheckName, ...]) -> tuple[str, ...]:
    return f"{shares.refused:.3f}", *(f"{shares.reasons[name]:.3f}" for name in names)


def _altered_row(name: str, sources: Mapping[str, RefusalShares]) -> tuple[str, ...]:
    refused = {source: shares.refused for source, shares in sources.items()}
    accepted = name.startswith("lung window")
    worst = (max if accepted else min)(refused, key=lambda source: refused[source])
    mean = sum(refused.values()) / len(refused)
    return name, "accepted" if accepted else "refused", f"{mean:.3f}", f"{worst} {refused[worst]:.3f}"
