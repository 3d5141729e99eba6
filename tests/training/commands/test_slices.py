from pathlib import Path

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.files.dicoms import ct_dataset, written
from training.__main__ import main
from training.data.ct_slices import read_images, read_lesions


def draw_body() -> NDArray[np.float64]:
    """Six slices (z, rows, columns) in Hounsfield units: a bright spot at the front, on the body's right."""
    volume = np.full((6, 18, 20), -1000.0)
    volume[:, 1, 2] = 100.0
    return volume


def write_nifti(path: Path, volume: NDArray[np.float64]) -> None:
    """Stored with another direction of the first axis, as scanners do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_the_right = volume.transpose(2, 1, 0)[::-1, ::-1]
    nibabel.save(nibabel.Nifti1Image(to_the_right[::-1], np.diag([-1.0, 1.0, 1.0, 1.0])), path)


def test_slices_of_nifti_volumes_are_upright_and_are_what_train_reads(tmp_path: Path) -> None:
    lesion, lung = np.zeros((6, 18, 20)), np.zeros((6, 18, 20))
    lesion[2:4, 1, 2] = 1
    lung[1:5, 2:] = 2
    for folder, volume in (("ct", draw_body()), ("lesions", lesion), ("lungs", lung)):
        write_nifti(tmp_path / folder / "case_01.nii.gz", volume)
    out = tmp_path / "out"
    masks = ["--lesions", str(tmp_path / "lesions"), "--lungs", str(tmp_path / "lungs")]
    assert main(["slices", str(tmp_path / "ct"), "--out", str(out), "--every", "2", "--source", "ct-seg", *masks]) == 0
    assert (out / "slices.csv").read_text().splitlines() == [
        "file,source,volume",
        "case_01-001.png,ct-seg,case_01",
        "case_01-003.png,ct-seg,case_01",
    ]
    with Image.open(out / "case_01-003.png") as grey, Image.open(out / "case_01-003.lesion.png") as mask:
        assert np.asarray(grey).argmax() == np.asarray(mask).argmax() == 1 * 20 + 2
        assert np.asarray(grey)[1, 2] == 246
    first, second = read_lesions(out)
    assert (first.source, first.group, first.kind) == ("ct-seg", "case_01", "lesions")
    assert first.lesion is not None
    assert not first.lesion.any()
    assert second.lesion is not None
    assert second.lesion.any()
    assert second.lung is not None
    assert 0.8 < second.lung.mean() < 0.95


@pytest.mark.parametrize(("matrix", "turned"), [("1 0 0 0 1 0 0 0 1", 1), ("-1 0 0 0 -1 0 0 0 1", -1)])
def test_slices_of_luna16_are_the_upright_middle_of_the_volume(tmp_path: Path, matrix: str, turned: int) -> None:
    folder = tmp_path / "luna"
    folder.mkdir()
    draw_body()[:, ::turned, ::turned].astype("<i2").tofile(folder / "a.raw")
    (folder / "a.mhd").write_text(
        f"ObjectType = Image\nDimSize = 20 18 6\nTransformMatrix = {matrix}\nElementType = MET_SHORT\n"
        "ElementDataFile = a.raw\n"
    )
    assert main(["slices", str(folder), "--out", str(tmp_path / "clear"), "--every", "1"]) == 0
    names = sorted(path.name for path in (tmp_path / "clear").iterdir())
    assert names == [f"a-00{number}.png" for number in range(1, 5)]
    with Image.open(tmp_path / "clear" / names[0]) as grey:
        assert np.asarray(grey).argmax() == 1 * 20 + 2


def test_a_dicom_folder_is_read_in_the_order_of_the_body(tmp_path: Path) -> None:
    folder = tmp_path / "dicom"
    folder.mkdir()
    for number, height in enumerate((30.0, 10.0, 20.0, 40.0)):
        pixels = np.full((64, 64), int(height) * 20, np.uint16)
        dataset = ct_dataset(
            pixels,
            SeriesInstanceUID="1.2.3",
            ImagePositionPatient=[0.0, 0.0, height],
            ImageOrientationPatient=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            PixelSpacing=[1.0, 1.0],
        )
        (folder / f"IM{number}").write_bytes(written(dataset))
    (folder / "notes.txt").write_text("not a slice")
    assert main(["slices", str(folder), "--out", str(tmp_path / "clear"), "--every", "1"]) == 0
    middle = read_images(tmp_path / "clear", "clear")
    assert [slice_.name for slice_ in middle] == ["series-000-001.png", "series-000-002.png"]
    assert middle[0].grey.mean() < middle[1].grey.mean()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.nii", b"\x5c\x01\0\0" + b"\0" * 400, "a.nii: "),
        ("a.mhd", b"ElementType = MET_SHORT\n", "a.mhd: not a complete MetaImage file"),
        ("a.txt", b"nothing", "no slices; it needs DICOM, NIfTI, or LUNA16's"),
    ],
)
def test_what_is_no_volume_is_one_line_and_status_1(
    tmp_path: Path, name: str, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    assert main(["slices", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_masks_of_another_volume_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_nifti(tmp_path / "ct" / "a.nii.gz", draw_body())
    write_nifti(tmp_path / "lesions" / "a.nii.gz", np.zeros((5, 18, 20)))
    command = ["slices", str(tmp_path / "ct"), "--out", str(tmp_path / "out"), "--lesions", str(tmp_path / "lesions")]
    assert main(command) == 1
    assert "the masks are [5, 18, 20] voxels, the volume [6, 18, 20]" in capsys.readouterr().err
    (tmp_path / "lesions" / "a.nii.gz").unlink()
    assert main(command) == 1
    assert "no a.nii.gz or .nii, the masks of volume a" in capsys.readouterr().err


def test_volumes_of_one_name_in_the_folders_of_two_patients_are_kept_apart(tmp_path: Path) -> None:
    for patient in ("one", "two"):
        write_nifti(tmp_path / "ct" / patient / "ct.nii.gz", draw_body())
        write_nifti(tmp_path / "masks" / patient / "ct.nii.gz", np.ones((6, 18, 20)) * (draw_body() > 0))
    out = tmp_path / "out"
    assert main(["slices", str(tmp_path / "ct"), "--out", str(out), "--lesions", str(tmp_path / "masks")]) == 0
    assert [(slice_.group, slice_.name) for slice_ in read_lesions(out)] == [
        ("one/ct", "one-ct-001.png"),
        ("two/ct", "two-ct-001.png"),
    ]


def test_slices_of_an_earlier_call_are_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_nifti(tmp_path / "ct" / "a.nii.gz", draw_body())
    command = ["slices", str(tmp_path / "ct"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    before = (tmp_path / "out" / "a-001.png").stat().st_mtime_ns
    assert main(command) == 1
    assert "out: the folder has files; pass a new one" in capsys.readouterr().err
    assert (tmp_path / "out" / "a-001.png").stat().st_mtime_ns == before


def test_empty_lung_masks_are_named_as_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_nifti(tmp_path / "ct" / "a.nii.gz", draw_body())
    write_nifti(tmp_path / "lungs" / "a.nii.gz", np.zeros((6, 18, 20)))
    command = ["slices", str(tmp_path / "ct"), "--out", str(tmp_path / "out"), "--lungs", str(tmp_path / "lungs")]
    assert main(command) == 1
    assert "lungs: the masks are empty, so no slice shows lungs" in capsys.readouterr().err
