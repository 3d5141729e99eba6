"""The generated slices are what the script draws and CT-like; slices of volumes are upright."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from examples import slices_from_volumes
from examples.draw_slice import draw_slice
from service.imaging.decode import to_input
from service.model.file import load_on_cpu, read_manifest
from training.data.ct_slices import read_lesions

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "disease"), [("slice.png", False), ("lesion.png", True)])
def test_committed_slices_are_what_the_script_draws(name: str, disease: bool) -> None:
    with Image.open(ROOT / "examples" / name) as image:
        assert image.mode == "L"
        committed = np.asarray(image, dtype=np.int16)
    # one grey level: the last bit of an FFT may differ between processors
    assert np.abs(committed - draw_slice(0, disease=disease)).max() <= 1


def test_the_shipped_model_tells_the_slice_with_lesion_from_the_clear_one() -> None:
    manifest = read_manifest(ROOT / "models")
    network = load_on_cpu(ROOT / "models", manifest.files[0])
    inputs = [to_input(draw_slice(0, disease=disease)[None], network.card.input_size) for disease in (False, True)]
    with torch.inference_mode():
        answer = network.network(torch.from_numpy(np.stack(inputs)))
    clear, lesion = answer["probability"].tolist()
    assert clear < network.card.threshold < lesion
    involved = answer["lung_involvement"][:, 0].tolist()
    assert involved[0] < 0.02
    assert involved[1] > 0.05


def test_equal_seeds_draw_equal_slices() -> None:
    assert np.array_equal(draw_slice(5, 128, 128), draw_slice(5, 128, 128))


def test_other_seeds_draw_other_slices() -> None:
    assert np.abs(draw_slice(0, 128, 128).astype(np.int16) - draw_slice(1, 128, 128)).mean() > 5


def test_disease_changes_patches_in_the_lungs_only() -> None:
    healthy, diseased = (draw_slice(3, 256, 256, disease=disease).astype(np.int16) for disease in (False, True))
    changed = np.abs(diseased - healthy) > 5
    assert 500 < np.count_nonzero(changed) < 0.2 * changed.size
    assert (diseased - healthy)[changed].mean() > 20
    assert np.median(healthy[changed]) < 110, "lung, not soft tissue"


@pytest.mark.parametrize(("height", "width"), [(64, 64), (200, 320), (320, 200)])
def test_any_shape_can_be_drawn(height: int, width: int) -> None:
    pixels = draw_slice(2, height, width)
    assert pixels.shape == (height, width)
    assert pixels.dtype == np.uint8
    assert pixels.max() > 240
    assert pixels[:3, :3].max() < 80, "the corner is air"


def _body() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Six slices (z, rows, columns) in Hounsfield units: a bright spot at the front, on the body's right."""
    volume = np.full((6, 18, 20), -1000.0)
    volume[:, 1, 2] = 100.0
    return volume


def test_slices_of_nifti_volumes_are_upright_and_are_what_the_training_job_reads(tmp_path: Path) -> None:
    lesion = np.zeros((6, 18, 20))
    lesion[2:4, 1, 2] = 1
    lung = np.zeros((6, 18, 20))
    lung[1:5] = 1
    for folder, volume in (("ct", _body()), ("lesions", lesion), ("lungs", lung)):
        (tmp_path / folder).mkdir()
        to_the_right = volume.transpose(2, 1, 0)[::-1, ::-1]
        # stored with another direction of the first axis, as scanners do
        image = nibabel.Nifti1Image(to_the_right[::-1], np.diag([-1.0, 1.0, 1.0, 1.0]))
        nibabel.save(image, tmp_path / folder / "case_01.nii.gz")
    out = tmp_path / "out"
    masks = ["--lesions", str(tmp_path / "lesions"), "--lungs", str(tmp_path / "lungs")]
    slices_from_volumes.main([str(tmp_path / "ct"), "--out", str(out), "--every", "2", "--source", "ct-seg", *masks])
    assert (out / "slices.csv").read_text().splitlines() == [
        "file,source,volume",
        "case_01-001.png,ct-seg,case_01.nii.gz",
        "case_01-003.png,ct-seg,case_01.nii.gz",
    ]
    with Image.open(out / "case_01-003.png") as grey, Image.open(out / "case_01-003.lesion.png") as mask:
        assert np.asarray(grey).argmax() == np.asarray(mask).argmax() == 1 * 20 + 2
        assert np.asarray(grey)[1, 2] == 246
    first, second = read_lesions(out)
    assert (first.source, first.group, first.kind) == ("ct-seg", "case_01.nii.gz", "lesions")
    assert first.lesion is not None
    assert not first.lesion.any()
    assert second.lesion is not None
    assert second.lesion.any()
    assert second.lung is not None
    assert second.lung.all()


@pytest.mark.parametrize(("matrix", "turned"), [("1 0 0 0 1 0 0 0 1", 1), ("-1 0 0 0 -1 0 0 0 1", -1)])
def test_slices_of_luna16_are_the_upright_middle_of_the_volume(tmp_path: Path, matrix: str, turned: int) -> None:
    folder = tmp_path / "luna"
    folder.mkdir()
    _body()[:, ::turned, ::turned].astype("<i2").tofile(folder / "a.raw")
    (folder / "a.mhd").write_text(
        f"ObjectType = Image\nDimSize = 20 18 6\nTransformMatrix = {matrix}\nElementType = MET_SHORT\n"
        "ElementDataFile = a.raw\n"
    )
    slices_from_volumes.main([str(folder), "--out", str(tmp_path / "clear"), "--every", "1"])
    names = sorted(path.name for path in (tmp_path / "clear").iterdir())
    assert names == [f"a-00{number}.png" for number in range(1, 5)]
    with Image.open(tmp_path / "clear" / names[0]) as grey:
        assert np.asarray(grey).argmax() == 1 * 20 + 2
