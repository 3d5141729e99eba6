from pathlib import Path

import pytest
import torch

from training.data.covid_ct import CovidCt
from training.errors import TrainingError
from training.report.fine_tuning import FineTuning
from training.report.network import SliceNetwork, load_imagenet
from training.report_recipe import ReportRecipe
from training.run.machine import Machine, find_machine

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("native", "dtype"), [(True, torch.bfloat16), (False, None)], ids=["bf16 in hardware", "no bf16 in hardware"]
)
def test_a_cpu_trains_in_bf16_only_where_it_has_it(
    monkeypatch: pytest.MonkeyPatch, native: bool, dtype: torch.dtype | None
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native}, raising=False)
    assert find_machine("cpu", "auto", None) == Machine(CPU, dtype, workers=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_gpu_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(TrainingError, match=r"--device cuda: no CUDA device is available"):
        find_machine("cuda", "auto", None)


def train_one_epoch(machine: Machine, data: CovidCt, recipe: ReportRecipe, thin_weights: Path, folder: Path) -> float:
    folder.mkdir()
    torch.manual_seed(0)
    network = SliceNetwork(recipe.architecture)
    load_imagenet(network, recipe.architecture, thin_weights)
    tuning = FineTuning(network.to(machine.device), recipe.model_copy(update={"epochs": 1}), machine, folder)
    tuning.run(data)
    assert tuning.history[1].train_loss is not None
    return tuning.history[1].train_loss


@pytest.mark.usefixtures("thin")
def test_an_epoch_under_autocast_is_nearly_that_in_fp32(
    data: CovidCt, recipe: ReportRecipe, thin_weights: Path, tmp_path: Path
) -> None:
    losses = [
        train_one_epoch(Machine(CPU, dtype, workers=0), data, recipe, thin_weights, tmp_path / str(dtype))
        for dtype in (None, torch.bfloat16)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.usefixtures("thin")
@pytest.mark.gpu
def test_an_epoch_on_a_gpu_is_nearly_that_on_the_cpu(
    data: CovidCt, recipe: ReportRecipe, thin_weights: Path, tmp_path: Path
) -> None:
    machines = (find_machine("cpu", "fp32", 0), find_machine("cuda", "auto", 2))
    losses = [train_one_epoch(m, data, recipe, thin_weights, tmp_path / m.device.type) for m in machines]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
