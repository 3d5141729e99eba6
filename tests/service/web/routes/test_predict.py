import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from PIL import Image

from service.errors import InferenceError
from service.imaging.decode import Slice, decode
from service.inference.service_state import load
from service.model.prediction import NetworkPrediction
from service.settings import Settings
from tests.support.files.dicoms import ct, phantom
from tests.support.processes.client import labelled, noise, panels, png, predict, problem, samples, serve

pytestmark = pytest.mark.anyio


async def test_brighter_slices_get_higher_probabilities_and_the_label_follows_the_threshold(models: Path) -> None:
    async with serve(models) as client:
        dark, bright = [(await predict(client, png(level))).json() for level in (60, 220)]
    assert 0 < dark["probability"] < 0.5 < bright["probability"] < 1
    assert (dark["label"], bright["label"]) == ("NonCOVID", "COVID")
    assert bright["threshold"] == 0.5
    assert bright["model"] == {"name": "tiny", "version": "0.0.1"}
    assert "not a medical device" in bright["disclaimer"]
    assert bright["timings_milliseconds"].keys() == {"read", "decode", "queue", "inference"}
    assert all(value >= 0 for value in bright["timings_milliseconds"].values())


async def test_concurrent_requests_get_the_answers_to_their_own_slices(models: Path) -> None:
    levels = np.random.default_rng(1).permutation(np.arange(40, 240, 5)).tolist()
    async with serve(models) as client:
        alone = [(await predict(client, png(level))).json()["probability"] for level in levels]
        together = await asyncio.gather(*(predict(client, png(level)) for level in levels))
    assert [response.json()["probability"] for response in together] == pytest.approx(alone, abs=1e-6)


async def test_the_same_slice_in_another_file_format_gets_the_same_answer(models: Path) -> None:
    """The trap of COVID-CT: its labels can be read off its file formats."""
    image = Image.open(io.BytesIO(noise(96)))
    answers = set()
    async with serve(models) as client:
        for mode, file_format in (("L", "PNG"), ("RGB", "PNG"), ("RGBA", "PNG"), ("RGB", "BMP"), ("L", "TIFF")):
            file = io.BytesIO()
            image.convert(mode).save(file, file_format)
            answers.add((await predict(client, file.getvalue())).json()["probability"])
    assert len(answers) == 1


async def test_an_image_unlike_a_slice_is_flagged_where_that_is_set(models: Path) -> None:
    async with serve(models, out_of_distribution="flag") as client:
        body = (await predict(client, png(2))).json()
        counts = await samples(client)
    check = body["out_of_distribution"]
    assert (check["flagged"], check["reason"]) == (True, "no_lungs")
    assert check["score"] > check["threshold"] == 1.0
    assert counts[labelled("covidct_ood_flags_total")] == 1
    assert counts[labelled("covidct_ood_refusals_total")] == 0


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (png(2), "no_lungs", "No lungs were found"),
        (png(255), "wrong_window", "width 1500, level -600"),
        (panels(), "several_panels", "Cut out one slice"),
    ],
)
async def test_an_image_unlike_a_slice_is_refused_with_the_reason(
    models: Path, data: bytes, code: str, words: str
) -> None:
    async with serve(models) as client:
        assert words in str(problem(await predict(client, data), 422, code)["detail"])
        assert (await predict(client, png(200))).status_code == 200
        counts = await samples(client)
    assert counts[labelled("covidct_ood_refusals_total")] == 1
    assert counts[labelled("covidct_rejected_images_total", reason=code)] == 1
    assert counts[labelled("covidct_predictions_total", label="NonCOVID")] == 0
    assert counts[labelled("covidct_lung_involvement_count")] == 1, "of the answered one"


async def test_lung_involvement_and_fraction_are_of_the_whole_and_of_each_side(models: Path) -> None:
    file = io.BytesIO()
    half = np.full((64, 64), 60, np.uint8)
    half[:, 32:] = 220
    Image.fromarray(half).save(file, "PNG")
    async with serve(models) as client:
        body = (await predict(client, file.getvalue())).json()
        counts = await samples(client)
    assert body["lung_involvement"] == {"both": 0.5, "left": 1.0, "right": 0.0}, "left is right in the picture"
    assert body["lung_fraction"] == 1.0
    check = body["out_of_distribution"]
    assert (check["flagged"], check["reason"], check["threshold"]) == (False, None, 1.0)
    assert 0 < check["score"] < 1
    assert counts[labelled("covidct_lung_involvement_bucket", le="0.4")] == 0
    assert counts[labelled("covidct_lung_involvement_bucket", le="0.5")] == 1


async def test_a_model_without_lungs_says_nothing_of_them_and_refuses_nothing(classifier_models: Path) -> None:
    async with serve(classifier_models) as client:
        body = (await predict(client, png(2))).json()
        counts = await samples(client)
    assert (body["lung_involvement"], body["lung_fraction"]) == (None, None)
    assert body["out_of_distribution"] == {"score": 0.0, "threshold": 1.0, "flagged": False, "reason": None}
    assert counts[labelled("covidct_lung_involvement_count")] == 0


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"", 422, "empty_file"),
        (b"just text, whatever the name says", 415, "unsupported_image_type"),
        (png()[:60], 422, "damaged_image"),
        (png(side=8), 422, "image_too_small"),
        (png(side=300), 422, "too_many_pixels"),
    ],
)
async def test_an_image_that_cannot_be_used_is_a_problem_and_is_counted(
    models: Path, data: bytes, status: int, code: str
) -> None:
    async with serve(models, max_pixels=200 * 200) as client:
        problem(await predict(client, data), status, code)
        counts = await samples(client)
    assert counts[labelled("covidct_rejected_images_total", reason=code)] == 1
    key = labelled("covidct_requests_total", route="/predict", method="POST", status=str(status))
    assert counts[key] == 1


async def test_an_answer_that_is_no_number_is_a_problem_of_its_own_slice_alone(models: Path) -> None:
    predictor = load(Settings(models_dir=models, device="cpu"))
    healthy = predictor._network

    def nan_for_dark(slices: torch.Tensor) -> dict[str, torch.Tensor]:
        outputs = healthy(slices)
        probability = outputs["probability"]
        return outputs | {"probability": probability.where(probability > 0.5, float("nan"))}

    predictor._network = nan_for_dark
    async with serve(models, predictor) as client:
        dark, bright = await asyncio.gather(predict(client, png(60)), predict(client, png(220)))
        counts = await samples(client)
    problem(dark, 500, "not_finite")
    assert "NaN" not in dark.text
    assert counts[labelled("covidct_rejected_images_total", reason="not_finite")] == 1
    assert bright.status_code == 200


async def test_requests_of_all_kinds_leave_no_task_behind(models: Path) -> None:
    async with serve(models) as client:
        assert (await predict(client, png())).status_code == 200
        before = len(asyncio.all_tasks())
        for _ in range(20):
            leaving = asyncio.create_task(predict(client, png()))
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.gather(predict(client, png()), predict(client, b"no image"), client.get("/nowhere"))
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - tasks have no event of their end
                await asyncio.sleep(0.01)


_PREDICTION = NetworkPrediction(
    0.5, np.zeros((4, 4), np.float32), {"no_lungs": 0.0, "wrong_window": 0.0, "several_panels": 0.0}
)


class Gated:
    """Holds the network until it is let go, and counts what it was given."""

    def __init__(self) -> None:
        self.running = asyncio.Event()
        self.gate = asyncio.Event()
        self.slices = 0

    async def __call__(self, slices: Sequence[Slice]) -> list[NetworkPrediction | InferenceError]:
        self.slices += len(slices)
        self.running.set()
        await self.gate.wait()
        return [_PREDICTION for _ in slices]


@pytest.fixture
async def gated(models: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gated]:
    gated = Gated()
    monkeypatch.setattr("service.model.predictor.Predictor.predict", lambda _, slices, *_others: gated(slices))
    yield gated
    gated.gate.set()


async def until(client: httpx2.AsyncClient, depth: float) -> None:
    """Until that many slices wait; what a scrape says is the only thing to ask."""
    async with asyncio.timeout(10):
        while (await samples(client))[labelled("covidct_queue_depth")] != depth:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_full_queue_is_told_with_a_time_to_retry_and_takes_requests_again(models: Path, gated: Gated) -> None:
    async with serve(models, queue_max_length=1, threads=1) as client:
        first = asyncio.create_task(predict(client, png()))
        await asyncio.wait_for(gated.running.wait(), 10)
        second = asyncio.create_task(predict(client, png()))
        await until(client, 1)
        refused = await predict(client, png())
        gated.gate.set()
        assert [(await task).status_code for task in (first, second)] == [200, 200]
        assert (await predict(client, png())).status_code == 200
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0


async def test_a_request_past_its_deadline_is_told_and_leaves_the_queue(models: Path, gated: Gated) -> None:
    async with serve(models, request_timeout_seconds=0.3, threads=1) as client:
        late = await asyncio.gather(predict(client, png()), predict(client, png()), predict(client, png()))
        for response in late:
            problem(response, 504, "deadline_exceeded")
        assert (await samples(client))[labelled("covidct_queue_depth")] == 0
        gated.gate.set()
        assert gated.slices == 1


async def test_too_many_requests_at_once_are_refused_but_metrics_and_health_answer(models: Path, gated: Gated) -> None:
    async with serve(models, max_concurrent_requests=1) as client:
        first = asyncio.create_task(predict(client, png()))
        await asyncio.wait_for(gated.running.wait(), 10)
        refused = await predict(client, png())
        problem(refused, 503, "overloaded")
        assert int(refused.headers["retry-after"]) > 0
        for path in ("/metrics", "/health/live", "/health/ready"):
            assert (await client.get(path)).status_code == 200
        gated.gate.set()
        assert (await first).status_code == 200
        assert (await predict(client, png())).status_code == 200


async def test_predict_takes_a_dicom_file(models: Path) -> None:
    async with serve(models) as client:
        answer = (await predict(client, ct(phantom()))).json()
        image = io.BytesIO()
        Image.fromarray(decode(ct(phantom()))[0]).save(image, "PNG")
        assert answer["probability"] == (await predict(client, image.getvalue())).json()["probability"]
        problem(await predict(client, ct(phantom(), Modality="MR")), 422, "not_ct")
