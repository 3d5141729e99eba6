import asyncio
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pydicom
import pytest
from PIL import Image

from service.api_study import StudyAnswer, StudyLine
from service.imaging.decode import Slice
from service.inference.service_state import load
from service.model.prediction import NetworkPrediction
from service.settings import Settings
from tests.support.files.dicoms import PATIENT, ct, phantom
from tests.support.files.studies import enhanced, gzipped, series, volume, zipped
from tests.support.processes.client import labelled, png, problem, samples, serve

pytestmark = pytest.mark.anyio

HEIGHTS = [50.0 + 10 * step for step in range(6)]
"""All inside the lungs of the drawn phantom."""


def named(files: list[bytes]) -> dict[str, bytes]:
    """Files with names as a scanner gives them."""
    return {f"DICOM/IM{number:04d}": data for number, data in enumerate(files)}


async def post(client: httpx2.AsyncClient, files: dict[str, bytes], query: str = "", **headers: str) -> httpx2.Response:
    fields = [("image", (name, data, "application/octet-stream")) for name, data in files.items()]
    return await client.post(f"/predict/study{query}", files=fields, headers=headers)


async def answer(client: httpx2.AsyncClient, files: dict[str, bytes], query: str = "") -> StudyAnswer:
    response = await post(client, files, query)
    assert response.status_code == 200, response.text
    return StudyAnswer.model_validate_json(response.content)


async def test_a_series_gets_one_answer_in_anatomical_order(models: Path) -> None:
    async with serve(models) as client:
        result = await answer(client, named(series(HEIGHTS[::-1])))
        counts = await samples(client)
    (only,) = result.series
    assert [slice_.position_mm for slice_ in only.slices] == pytest.approx(HEIGHTS)
    assert [slice_.file for slice_ in only.slices] == [5, 4, 3, 2, 1, 0]
    assert (only.slices_read, only.slices_without_lungs, only.slices_failed) == (6, 0, 0)
    assert only.spacing_mm == pytest.approx(10)
    assert only.lung_volume_ml is not None
    assert only.lesion_volume_ml is not None
    assert only.lung_involvement is not None
    assert only.lesion_volume_ml / only.lung_volume_ml == pytest.approx(only.lung_involvement.both)
    assert only.label in ("COVID", "NonCOVID")
    assert len(only.key_slices) == 3
    assert not only.warnings
    assert "not a medical device" in result.disclaimer
    assert counts[labelled("covidct_study_slices_total", outcome="read")] == 6
    assert counts[labelled("covidct_studies_total", outcome="answered")] == 1
    assert counts[labelled("covidct_study_duration_seconds_count")] == 1


async def test_zip_files_and_volume_of_one_series_get_the_same_answer(models: Path) -> None:
    async with serve(models) as client:
        files = (await answer(client, named(series(HEIGHTS)))).series[0]
        zip_ = (await answer(client, {"ct.zip": zipped(named(series(HEIGHTS)))})).series[0]
        nifti = (await answer(client, {"ct.nii.gz": gzipped(volume(HEIGHTS).to_bytes())})).series[0]
    assert zip_.model_dump() == files.model_dump()
    assert nifti.probability == files.probability
    assert nifti.lung_volume_ml == pytest.approx(files.lung_volume_ml)
    assert nifti.lung_involvement == files.lung_involvement


async def test_what_a_study_has_beside_its_slices_is_skipped_with_its_reason(models: Path) -> None:
    scout = ct(phantom(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    others = {"scout": scout, "report.pdf": b"%PDF-1.4", "damaged": series([0.0])[0][:-50]}
    async with serve(models) as client:
        result = await answer(client, {**named(series(HEIGHTS)), **others})
        counts = await samples(client)
    assert [(other.file, other.reason) for other in result.skipped] == [(6, "localizer"), (7, "unsupported_image_type")]
    assert [(other.file, other.reason) for other in result.failed] == [(8, "damaged_image")]
    assert result.series[0].slices_read == 6
    assert labelled("covidct_rejected_images_total", reason="damaged_image") not in counts
    assert counts[labelled("covidct_study_slices_total", outcome="skipped")] == 2
    assert counts[labelled("covidct_study_slices_total", outcome="failed")] == 1


async def test_slices_without_lungs_are_normal_in_a_series(models: Path) -> None:
    async with serve(models) as client:
        result = (await answer(client, named([*series(HEIGHTS), dark(300), dark(310)]))).series[0]
        counts = await samples(client)
    assert (result.slices_read, result.slices_without_lungs) == (6, 2)
    assert [slice_.reason for slice_ in result.slices] == [None] * 6 + ["no_lungs"] * 2
    assert counts[labelled("covidct_ood_refusals_total")] == 0
    assert counts[labelled("covidct_study_slices_total", outcome="no_lungs")] == 2


def dark(height: float, hounsfield: int = -3000) -> bytes:
    """A slice of black, in which the tiny network finds no lungs, or of another grey."""
    ids = {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3"}
    return ct(np.zeros((64, 64), np.uint16), RescaleIntercept=hounsfield, **ids, **place(height))


def place(height: float) -> dict[str, Any]:
    """Elements of the place of a slice."""
    return {
        "ImagePositionPatient": [-157.5, -157.5, height],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [5, 5],
    }


async def test_a_study_without_lungs_or_slices_is_refused(models: Path) -> None:
    async with serve(models) as client:
        problem(await post(client, {"a": dark(0)}), 422, "no_lungs")
        problem(await post(client, {"white": dark(0, hounsfield=3000)}), 422, "no_lungs")
        detail = problem(await post(client, {"a": b"text", "b": b"%PDF", "c": b""}), 422, "no_slices")["detail"]
        assert "2 of 3 files: The content is not an image" in str(detail)
        assert "1 of 3 files: The file is empty" in str(detail)
        counts = await samples(client)
    assert counts[labelled("covidct_studies_total", outcome="no_slices")] == 1


async def test_identifiers_are_given_only_if_asked(models: Path) -> None:
    async with serve(models) as client:
        without = await post(client, named(series(HEIGHTS)))
        with_uids = (await answer(client, named(series(HEIGHTS)), "?uids=true")).series[0]
    assert "1.2.3" not in without.text
    assert "IM0000" not in without.text
    assert PATIENT not in without.text
    assert (with_uids.study_uid, with_uids.series_uid) == ("1.2", "1.2.3")
    assert [slice_.instance_uid for slice_ in with_uids.slices] == [f"1.2.3.{number}" for number in range(1, 7)]
    assert with_uids.slices[0].name == "DICOM/IM0000"


async def test_lines_have_progress_then_the_answer(models: Path) -> None:
    async with serve(models) as client:
        response = await post(client, named(series(HEIGHTS)), accept="application/x-ndjson")
    assert response.headers["content-type"] == "application/x-ndjson"
    lines = [StudyLine.model_validate_json(line) for line in response.text.splitlines()]
    done = list(dict.fromkeys(line.progress.done for line in lines if line.progress))  # lines come between slices too
    assert done == list(range(7))
    assert {line.progress.of for line in lines if line.progress and line.progress.done} == {6}
    assert lines[-1].answer is not None
    assert lines[-1].answer.series[0].slices_read == 6


async def test_a_problem_after_the_first_line_is_the_last_line(models: Path) -> None:
    async with serve(models) as client:
        response = await post(client, {"a": dark(0)}, accept="application/x-ndjson")
        counts = await samples(client)
    assert response.status_code == 200
    last = StudyLine.model_validate_json(response.text.splitlines()[-1])
    assert last.problem is not None
    assert last.problem.code == "no_lungs"
    assert counts[labelled("covidct_studies_total", outcome="no_lungs")] == 1
    assert labelled("covidct_studies_total", outcome="answered") not in counts


async def test_lines_have_pictures_and_files_after_the_answer_if_asked(models: Path) -> None:
    heights = [100.0 + step for step in range(12)]  # thin: one slice every 5 mm is read
    async with serve(models) as client:
        response = await post(
            client, named(series(heights)), "?pictures=true&files=true", accept="application/x-ndjson"
        )
    lines = [StudyLine.model_validate_json(line) for line in response.text.splitlines()]
    kinds = [next(iter(line.model_dump(exclude_none=True))) for line in lines]
    assert list(dict.fromkeys(kinds)) == ["progress", "answer", "picture", "file"]
    (result,) = next(line.answer for line in lines if line.answer).series
    pictures = [line.picture for line in lines if line.picture]
    assert [picture.index for picture in pictures][: len(result.key_slices)] == result.key_slices
    assert sorted(picture.index for picture in pictures) == list(range(12))
    for picture in pictures:
        with Image.open(io.BytesIO(picture.slice_jpeg)) as image:
            assert (image.format, image.size) == ("JPEG", (64, 64))
        assert (picture.lesion_png is None) == (result.slices[picture.index].reason == "not_read")
    lesion = next(picture.lesion_png for picture in pictures if picture.lesion_png)
    with Image.open(io.BytesIO(lesion)) as image:
        assert (image.mode, image.size) == ("L", (4, 4))
    files = {line.file.name: pydicom.dcmread(io.BytesIO(line.file.content)) for line in lines if line.file}
    assert {name: dataset.Modality for name, dataset in files.items()} == {
        "segmentation.dcm": "SEG",
        "report.dcm": "SR",
    }


async def test_a_zip_has_the_answer_pictures_and_dicom_objects(models: Path) -> None:
    async with serve(models) as client:
        response = await post(client, named(series(HEIGHTS)), accept="application/zip")
        lines = await post(client, named(series(HEIGHTS)), "?files=true", accept="application/x-ndjson")
    archive = zipfile.ZipFile(io.BytesIO(response.content))
    names = archive.namelist()
    result = StudyAnswer.model_validate_json(archive.read("study.json")).series[0]
    assert names == [
        "study.json",
        *(f"series-0/key-{index:04d}.png" for index in result.key_slices),
        "series-0/segmentation.dcm",
        "series-0/report.dcm",
    ]
    files = [file for line in lines.text.splitlines() if (file := StudyLine.model_validate_json(line).file)]
    assert [file.path for file in files] == names[1:]
    assert files[0].content == archive.read(names[1])
    masks = pydicom.dcmread(io.BytesIO(archive.read("series-0/segmentation.dcm")))
    assert masks.PatientName == PATIENT
    assert masks.Modality == "SEG"


@pytest.mark.parametrize(
    ("query", "kind"),
    [("", "BINARY"), ("?segmentation=binary", "BINARY"), ("?segmentation=fractional", "FRACTIONAL")],
)
async def test_the_segmentation_has_masks_or_probabilities_as_asked(query: str, kind: str, models: Path) -> None:
    files = named(series(HEIGHTS[:2], FrameOfReferenceUID="1.2.9"))
    async with serve(models) as client:
        response = await post(client, files, query, accept="application/zip")
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        result = pydicom.dcmread(io.BytesIO(archive.read("series-0/segmentation.dcm")))
    assert result.SegmentationType == kind
    assert result.pixel_array.max() <= (1 if kind == "BINARY" else 255)


async def test_another_kind_of_segmentation_is_refused_by_name(models: Path) -> None:
    async with serve(models) as client:
        response = await post(client, named(series(HEIGHTS[:2])), "?segmentation=blurred", accept="application/zip")
    assert response.status_code in (400, 422)
    assert "segmentation" in response.text


async def test_the_zip_of_a_volume_has_masks(models: Path) -> None:
    async with serve(models) as client:
        response = await post(client, {"a.nii": volume(HEIGHTS).to_bytes()}, accept="application/zip")
    names = zipfile.ZipFile(io.BytesIO(response.content)).namelist()
    assert {"series-0/lungs.nii.gz", "series-0/lesion.nii.gz", "series-0/missing.txt"} <= set(names)


async def test_thin_series_are_read_in_steps_that_can_be_chosen(models: Path) -> None:
    files = named(series([100.0 + step for step in range(21)]))
    async with serve(models) as client:
        usual = (await answer(client, files)).series[0]
        every = (await answer(client, files, "?every_mm=0")).series[0]
        wide = (await answer(client, files, "?every_mm=10")).series[0]
    assert (usual.slices_read, usual.slices_not_read) == (5, 16)
    assert (every.slices_read, wide.slices_read) == (21, 3)


def thin(**changes: Any) -> list[bytes]:
    """A series with 1 mm between its slices."""
    return series([100.0 + step for step in range(21)], SliceThickness=1, **changes)


@pytest.mark.parametrize("form", ["files", "zip", "volume", "frames"])
async def test_a_thin_series_gets_the_same_answer_if_all_slices_are_decoded(form: str, models: Path) -> None:
    heights = [100.0 + step for step in range(21)]
    at_once = series(heights, SliceThickness=None)
    content = {
        "files": (named(thin()), named(at_once)),
        "zip": ({"a.zip": zipped(named(thin()))}, {"a.zip": zipped(named(at_once))}),
        "volume": ({"a.nii.gz": gzipped(volume(heights).to_bytes())}, {"a.nii": volume(heights).to_bytes()}),
        "frames": ({"a": enhanced(heights, thickness=1)}, {"a": enhanced(heights)}),
    }
    later, sooner = content[form]
    async with serve(models) as client:
        result, expected = await answer(client, later), await answer(client, sooner)
    assert result.series == expected.series
    assert result.series[0].slices_read == 5


async def test_of_a_thin_series_a_damaged_slice_counts_only_where_it_is_read(models: Path) -> None:
    files = thin()
    files[8], files[10] = files[8][:-3000], files[10][:-3000]  # the latter one is read
    async with serve(models) as client:
        result = await answer(client, named(files))
    assert not result.failed
    assert (result.series[0].slices_read, result.series[0].slices_failed, result.series[0].slices_not_read) == (
        4,
        1,
        16,
    )
    assert result.series[0].slices[10].reason == "damaged_image"


async def test_the_zip_of_a_thin_series_has_dicom_results(models: Path) -> None:
    async with serve(models) as client:
        response = await post(client, named(thin()), accept="application/zip")
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        masks = pydicom.dcmread(io.BytesIO(archive.read("series-0/segmentation.dcm")))
        assert len(masks.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 21
        assert len([name for name in archive.namelist() if "key-" in name]) > 1


@pytest.mark.parametrize(
    ("settings", "status", "code"),
    [
        ({"max_study_bytes": 5000}, 413, "body_too_large"),
        ({"max_study_slices": 3}, 422, "study_too_large"),
        ({"study_timeout_seconds": 0.001}, 504, "deadline_exceeded"),
    ],
)
async def test_limits(models: Path, settings: dict[str, Any], status: int, code: str) -> None:
    async with serve(models, **settings) as client:
        problem(await post(client, named(series(HEIGHTS))), status, code)
        assert (await client.get("/health/ready")).status_code == 200


async def test_a_zip_bomb_and_nested_zips_are_named(models: Path) -> None:
    async with serve(models, max_study_bytes=3_000_000) as client:
        bomb = zipped({"a": bytes(10_000_000)})
        problem(await post(client, {"ct.zip": bomb}), 422, "no_slices")
        inner = zipped(named(series(HEIGHTS)))
        detail = problem(await post(client, {"ct.zip": zipped({"inner.zip": inner})}), 422, "no_slices")["detail"]
        assert "series. The file in the zip is a zip itself" in str(detail)
        many = zipped(dict.fromkeys((f"{number}" for number in range(20_001)), b""))
        problem(await post(client, {"ct.zip": many}), 422, "archive_too_large")
        problem(await post(client, {"ct.zip": inner[:2000]}), 422, "damaged_archive")


async def test_a_form_without_files_is_refused(models: Path) -> None:
    async with serve(models) as client:
        problem(await client.post("/predict/study", data={"image": "text"}), 415, "unsupported_content_type")
        text = await client.post("/predict/study", files={"image": (None, b"text")})
        problem(text, 400, "missing_image")
        problem(await client.post("/predict/study", files={"file": ("a", b"x")}), 400, "missing_image")
        problem(await post(client, {"a": png()}, "?every=3"), 400, "malformed_request")


async def test_single_slices_are_answered_while_a_study_is_read(models: Path) -> None:
    predictor = load(Settings(models_dir=models, device="cpu", threads=1))
    order: list[int] = []
    is_busy = asyncio.Event()
    healthy = predictor.predict

    async def slow(slices: list[Slice], *args: Any) -> list[NetworkPrediction | Exception]:
        await asyncio.sleep(0.02)
        order.extend(int(slice_.mean()) for slice_ in slices)
        is_busy.set()
        return await healthy(slices, *args)

    predictor.predict = slow  # type: ignore[method-assign,assignment]
    async with serve(models, predictor) as client:
        study = asyncio.create_task(post(client, named(series([50.0 + 5 * step for step in range(40)]))))
        await is_busy.wait()
        before = len(order)
        response = await client.post("/predict", files={"image": ("a.png", png(200), "image/png")})
        waited = order.index(200) - before
        assert (await study).status_code == 200
    assert response.status_code == 200
    assert waited <= 3


async def test_too_many_studies_at_a_time_are_refused(models: Path) -> None:
    async with serve(models, max_concurrent_studies=1) as client:
        started = asyncio.Event()

        async def endless() -> Any:
            started.set()
            yield b"--b\r\n"
            await asyncio.sleep(60)

        headers = {"content-type": "multipart/form-data; boundary=b"}
        first = asyncio.create_task(client.post("/predict/study", content=endless(), headers=headers))
        await started.wait()
        await asyncio.sleep(0)
        response = await post(client, named(series(HEIGHTS)))
        problem(response, 503, "overloaded")
        assert (await client.post("/predict", files={"image": ("a.png", png(), "image/png")})).status_code == 200
        first.cancel()


async def test_each_line_has_one_kind(models: Path) -> None:
    async with serve(models) as client:
        response = await post(client, named(series(HEIGHTS)), accept="application/x-ndjson")
    assert [list(json.loads(line)) for line in response.text.splitlines()][-1] == ["answer"]


async def test_a_damaged_zip_is_the_last_line_after_the_first(models: Path) -> None:
    async with serve(models) as client:
        damaged = zipped(named(series(HEIGHTS)))[:2000]
        response = await post(client, {"ct.zip": damaged}, accept="application/x-ndjson")
    lines = [StudyLine.model_validate_json(line) for line in response.text.splitlines()]
    assert lines[0].progress is not None
    assert lines[-1].problem is not None
    assert lines[-1].problem.code == "damaged_archive"


@pytest.mark.parametrize("more", [b'name="note"', b'name="note"; filename="a"'])
async def test_parts_that_are_ignored_are_few(models: Path, more: bytes) -> None:
    """Each costs as much time as a file."""
    body = b"--xyz\r\nContent-Disposition: form-data; " + more + b"\r\n\r\nx\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=xyz"}
    async with serve(models) as client:
        answer = await client.post("/predict/study", content=body * 17 + b"--xyz--\r\n", headers=headers)
    assert "more than 16 parts other than files 'image'" in str(problem(answer, 400, "malformed_request")["detail"])
