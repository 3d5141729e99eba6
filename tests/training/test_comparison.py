import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training.__main__ import main
from training.comparison import difference_of_auc

SMALL = ["--counts", "any", "--input-size", "32", "--resize", "40", "--probe-views", "1", "--device", "cpu"]


def run(data_root: Path, weights: Path, out: Path, *seeds: str) -> int:
    networks = ["--architectures", "vgg19_bn", "--recipes", "best", "--seeds", *seeds]
    files = ["--data", str(data_root), "--weights", f"vgg19_bn={weights}", "--out", str(out)]
    return main(["compare", *files, *networks, *SMALL])


def test_seeds_are_summed_up_and_what_has_ended_is_not_trained_again(
    data_root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data_root, weights, tmp_path, "0", "1") == 0
    first = json.loads((tmp_path / "compare.json").read_text())
    record = tmp_path / "vgg19_bn-best-0" / "trial.json"
    written = record.stat().st_mtime_ns
    assert run(data_root, weights, tmp_path, "0", "1") == 0
    assert record.stat().st_mtime_ns == written
    assert json.loads((tmp_path / "compare.json").read_text()) == first
    (row,) = first["rows"]
    assert (row["architecture"], row["recipe"], row["seeds"]) == ("vgg19_bn", "best", [0, 1])
    assert row["weights"].endswith("vgg19_bn.pth")
    trials = [json.loads((tmp_path / f"vgg19_bn-best-{seed}" / "trial.json").read_text()) for seed in (0, 1)]
    values = [trial["splits"]["test"]["figures"]["auc"]["value"] for trial in trials]
    assert row["test"]["auc"]["mean"] == pytest.approx(np.mean(values), abs=1e-4)
    assert row["test"]["auc"]["deviation"] == pytest.approx(np.std(values, ddof=1), abs=1e-4)
    assert "| vgg19_bn | best | 0, 1 |" in capsys.readouterr().out
    for name in ("roc", "confusion-vgg19_bn-best"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_weights_must_say_whose_they_are(data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--data", str(data_root), "--weights", "vgg.pth", "--out", str(tmp_path)]) == 1
    assert "--weights vgg.pth: say which network's" in capsys.readouterr().err


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
