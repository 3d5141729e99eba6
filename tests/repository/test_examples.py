"""The generated slices are what the scripts draw, and the model reads them."""

import json
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from PIL import Image

from examples.draw_slice import draw_slice
from examples.draw_study import draw_volume
from service.imaging.decode import to_input
from service.model.file import load_on_cpu, read_manifest

ROOT = Path(__file__).parents[2]

_PRECISIONS = 0.003
"""Difference of the probabilities in int8, which README shows, and fp32."""


@pytest.mark.parametrize(("name", "disease"), [("slice.png", False), ("lesion.png", True)])
def test_committed_slices_are_what_the_script_draws(name: str, disease: bool) -> None:
    with Image.open(ROOT / "examples" / name) as image:
        assert image.mode == "L"
        committed = np.asarray(image, dtype=np.int16)
    # one grey level: the last bit of an FFT may differ between processors
    assert np.abs(committed - draw_slice(0, disease=disease)).max() <= 1


def test_the_samples_of_the_page_are_what_the_scripts_draw() -> None:
    page = ROOT / "service" / "web" / "page"
    with Image.open(page / "sample-slice.jpg") as image:
        assert np.abs(np.asarray(image, np.int16) - draw_slice(0, disease=True)).mean() < 4
    study = pydicom.dcmread(page / "sample-study.dcm")
    assert np.abs(study.pixel_array.astype(np.int16) - draw_volume(0)).mean() < 8


def test_the_shipped_model_tells_the_slice_with_lesion_from_the_clear_one() -> None:
    manifest = read_manifest(ROOT / "models")
    network = load_on_cpu(ROOT / "models", manifest.files[0])
    inputs = [to_input(draw_slice(0, disease=disease)[None], network.card.input_size) for disease in (False, True)]
    with torch.inference_mode():
        answer = network.network(torch.from_numpy(np.stack(inputs)))
    clear, lesion = answer["probability"].tolist()
    assert clear < network.card.threshold < lesion
    involved = answer["lung_involvement"].tolist()
    assert involved[0][0] < 0.02
    assert involved[1][0] > 0.05
    readme = (ROOT / "README.md").read_text()
    shown = json.loads(re.findall(r"^```json\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)[0])
    for name in ("probability", "lesion_probability", "covid_given_lesion"):
        assert shown[name] == pytest.approx(answer[name][1].item(), abs=_PRECISIONS)
    assert list(shown["lung_involvement"].values()) == pytest.approx(involved[1], abs=_PRECISIONS)
    assert f"`examples/slice.png`, which shows no lesions, the probability is {clear:.2f}" in readme
