from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.support.networks.thin_vgg import write_thin_weights
from training.__main__ import main
from training.evaluation.scores import difference_of_auc
from training.report.run import ReportRunRecord

SMALL = ["--counts", "any", "--device", "cpu", "--input-size", "32", "--resize", "40", "--batch-size", "8"]


@pytest.mark.usefixtures("thin")
def test_networks_and_seeds_are_next_to_the_reports_figures_and_nothing_is_trained_twice(
    data_root: Path, thin_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_thin_weights(tmp_path / "vgg16_bn.pth", "vgg16_bn")
    out = tmp_path / "out"
    command = ["report", "--data", str(data_root), "--weights", f"vgg19_bn={thin_weights}", "--out", str(out), *SMALL]
    command += ["--weights", f"vgg16_bn={other}", "--epochs", "1", "--seeds", "0", "1"]
    assert main(command) == 0
    page = (out / "report.md").read_text()
    assert page in capsys.readouterr().out
    runs = {
        name: ReportRunRecord.model_validate_json((out / name / "model" / "metrics.json").read_text())
        for name in names()
    }
    areas = [runs[f"vgg16_bn-{seed}"].splits["test"].figures["auc"].value for seed in (0, 1)]
    assert "| vgg19_bn | the report | 0.842 | 0.76 |" in page
    assert f"| vgg16_bn | seed 0, 1 | {np.mean(areas):.3f} ± {np.std(areas, ddof=1):.3f} |" in page
    assert "AUC of vgg19_bn minus that of vgg16_bn: " in page
    assert "differ from the report's: batch_size 8, epochs 1, input_size 32, resize 40." in page
    for name, run in runs.items():
        assert (f"**{name}**: This network learned nothing" in page) == (not run.learned)
    for line in page.split("](")[1:]:
        assert (out / line.partition(")")[0]).read_bytes().startswith(b"\x89PNG")
    stamps = {name: (out / name / "last.pt").stat().st_mtime_ns for name in names()}
    assert main(command) == 0
    assert {name: (out / name / "last.pt").stat().st_mtime_ns for name in names()} == stamps
    assert (out / "report.md").read_text() == page


def names() -> list[str]:
    return [f"{architecture}-{seed}" for architecture in ("vgg19_bn", "vgg16_bn") for seed in (0, 1)]


def test_a_better_network_differs_by_more_than_nothing_and_the_same_one_by_nothing() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    good = labels + generator.normal(0, 0.5, (3, 200))
    poor = labels + generator.normal(0, 3, (3, 200))
    better = difference_of_auc(good, poor, labels)
    same = difference_of_auc(good, good, labels)
    assert better.value == pytest.approx(
        np.mean([roc_auc_score(labels, row) for row in good]) - np.mean([roc_auc_score(labels, row) for row in poor]),
        abs=1e-4,
    )
    assert better.low > 0.1
    assert better.low < better.value < better.high
    assert (same.low, same.value, same.high) == (0, 0, 0)
