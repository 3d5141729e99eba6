"""README.md of the models folder: the card's template, filled from the report that metrics.json holds."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from string import Template
from typing import Final, get_args

from service.model.card import AnswerName, CheckName, Interval
from training.evaluation.checks import CheckShares
from training.release.lesion_report import LesionReport
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


def write_card(folder: Path, report: LesionReport) -> None:
    """Write the card of a report into a folder."""
    write_text(folder / CARD_NAME, card_text(report))


def card_text(report: LesionReport) -> str:
    """Fill the template from a report."""
    parts = _origin(report) | _left_out(report) | _thresholds(report) | _test(report) | _refusals(report)
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(parts)


def written(figure: Interval) -> str:
    """Write a figure with its interval, as in `0.887 (0.874 to 0.900)`."""
    return f"{figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"


def _rows(rows: Iterable[Iterable[object]]) -> str:
    return "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)


def _origin(report: LesionReport) -> dict[str, str]:
    recipe = report.config
    hours = sum(report.wall_time_seconds.values()) / 3600
    return {
        "name": report.model.name,
        "version": report.model.version,
        "files": " and ".join(f"`{file.name}`" for file in report.files),
        "box": f"{recipe['box_height']} x {recipe['box_width']}",
        "weights": f"ImageNet VGG-19 (Simonyan & Zisserman, CC BY 4.0), {report.model.weights}",
        "frozen": str(recipe["frozen_layers"]),
        "left_out_steps": f"{recipe['left_out_steps']:,}",
        "steps": f"{recipe['steps']:,}",
        "batch": str(recipe["batch_size"]),
        "machine": report.machine,
        "hours": f"{hours:.1f} hours in all",
        "command": report.command or "python -m training train",
        "commit": report.git_commit[:7],
        "date": (report.date or "")[:10],
        "sources": _rows((name, each.count) for name, each in report.data.items() if not name.endswith(" test")),
        "agreement": _rows(
            (
                f"`{file.name}`",
                f"{file.bytes / 1e6:.1f} MB",
                f"{report.agreement[file.name].auc:.3f}",
                f"{report.agreement[file.name].decisions_equal:.3f}",
                f"{report.agreement[file.name].largest_difference:.4f}",
            )
            for file in report.files
        ),
    }


def _left_out(report: LesionReport) -> dict[str, str]:
    judged = report.judgement
    lesions = judged.lesions
    correlation = lesions.involvement_spearman
    return {
        "left_out": _rows(
            (
                *(name, f"{each.count} ({each.positives}), {each.groups}"),
                written(each.figures["auc"]),
                written(each.nested.rates.sensitivity if each.nested else each.figures["sensitivity"]),
                written(each.nested.rates.specificity if each.nested else each.figures["specificity"]),
                written(each.figures["calibration_error"]),
            )
            for name, each in judged.sources.items()
        ),
        "alone": _rows(
            (name, negatives, *(f"{aucs[answer]:.3f}" for answer in get_args(AnswerName)))
            for name, each in judged.sources.items()
            for negatives, aucs in each.answers.items()
        ),
        "clear": _rows(
            (name, each.count, f"{each.mean_probability:.3f}", f"{each.mean_lesion_probability:.3f}")
            for name, each in judged.clear.items()
        ),
        "inside": _rows((name, f"{share:.3f}") for name, share in judged.strongest_inside_lung.items()),
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


def _thresholds(report: LesionReport) -> dict[str, str]:
    points = report.judgement.operating_points
    return {
        "points": _rows(
            (
                *(name, each.purpose, f"{each.threshold:.2f}", f"{each.lesion_threshold:.2f}"),
                *(f"{each.sensitivity:.3f}", f"{each.specificity:.3f}"),
            )
            for name, each in points.items()
        ),
        "rules": "\n".join(f"- `{name}`: {point.rule_with_range}." for name, point in points.items()),
        "rates": _rows(
            (name, source, f"{negatives} ({own.negatives})", written(own.sensitivity), written(own.specificity))
            for name, each in points.items()
            for source, parts in each.sources.items()
            for negatives, own in parts.items()
        ),
        "calibrations": _rows(
            (f"`{name}`", f"{each.slope:.3f}", f"{each.offset:.3f}", each.rule)
            for name, each in report.judgement.calibrations.items()
        ),
    }


def _test(report: LesionReport) -> dict[str, str]:
    shown = {name: title for name, title in _TEST.items() if name in report.splits}
    titles = [f"{title} (n = {report.splits[name].count})" for name, title in shown.items()]
    rows = [
        (name, *(written(report.splits[split].figures[name]) for split in shown))
        for name in report.splits["test"].figures
    ]
    matrix = report.splits["test"].confusion_matrix
    return {
        "test": _rows([("", *titles), ("---",) * (1 + len(titles)), *rows]),
        "confusion": (
            f"{matrix.true_positives} true and {matrix.false_positives} false positives, {matrix.true_negatives} true "
            f"and {matrix.false_negatives} false negatives"
        ),
        "test_error": written(report.test_calibration_error),
        "patients": _by_patient(report, shown),
        "altered": _rows(
            (
                _ALTERED.get(name, name),
                f"{each.accuracy:.3f} ({each.accuracy_change:+.3f})",
                f"{each.auc:.3f} ({each.auc_change:+.3f})",
            )
            for name, each in report.altered.items()
        ),
    }


def _by_patient(report: LesionReport, shown: Mapping[str, str]) -> str:
    patients = {title: report.splits[name].patients for name, title in shown.items()}
    known = {title: each for title, each in patients.items() if each is not None}
    if not known:
        return "The patients of these slices are not known, so the intervals are too narrow."
    rows = [(name, *(written(each.figures[name]) for each in known.values())) for name in _BY_PATIENT]
    count = next(iter(known.values())).count
    head = f"With one score a patient, the mean over the patient's slices ({count} patients of test):\n\n"
    return head + _rows([("by patient", *known), ("---",) * (1 + len(known)), *rows])


def _refusals(report: LesionReport) -> dict[str, str]:
    checks = report.checks
    names = tuple(checks.thresholds)
    tables = [
        _rows(
            [
                (title, "number", "refused", *names),
                ("---",) * (3 + len(names)),
                *((name, each.count, *_shares(each, names)) for name, each in sets.items()),
            ]
        )
        for title, sets in (
            ("chest slices, which should be answered", checks.slices),
            ("other pictures, which should be refused", checks.others),
        )
    ]
    return {
        "check_thresholds": ", ".join(f"`{name}` {threshold:g}" for name, threshold in checks.thresholds.items()),
        "check_rule": checks.rule,
        "refused": "\n\n".join(tables),
        "refused_altered": _rows(_altered_row(name, own) for name, own in checks.altered.items()),
    }


def _shares(each: CheckShares, names: tuple[CheckName, ...]) -> tuple[str, ...]:
    return f"{each.refused:.3f}", *(f"{each.reasons[name]:.3f}" for name in names)


def _altered_row(name: str, sources: Mapping[str, CheckShares]) -> tuple[str, ...]:
    refused = {source: each.refused for source, each in sources.items()}
    answered = name.startswith("lung window")
    furthest = (max if answered else min)(refused, key=lambda source: refused[source])
    mean = sum(refused.values()) / len(refused)
    return name, "answered" if answered else "refused", f"{mean:.3f}", f"{furthest} {refused[furthest]:.3f}"
