import hashlib
import json
from pathlib import Path

import pytest
import torch

from service.artifact import load_model, read_manifest, save_model, synthetic_slice
from service.errors import ModelFileError
from tests.tiny import INPUT_SIZE, SELF_CHECK_SEED, TinyNetwork, tiny_card, write_models

CPU = torch.device("cpu")


def test_what_is_saved_is_loaded_with_its_card(tmp_path: Path) -> None:
    row = write_models(tmp_path)
    artifact = load_model(tmp_path / row.name, CPU, "fp32", row.sha256)
    assert artifact.card == tiny_card()
    assert artifact.sha256 == row.sha256 == hashlib.sha256((tmp_path / row.name).read_bytes()).hexdigest()
    batch = torch.from_numpy(synthetic_slice(3, INPUT_SIZE))[None]
    for answer, expected in zip(artifact.network(batch), TinyNetwork().eval()(batch), strict=True):
        torch.testing.assert_close(answer, expected, rtol=0, atol=1e-3)


def test_the_same_network_gives_the_same_file_under_any_name(tmp_path: Path) -> None:
    rows = [save_model(TinyNetwork().eval(), tiny_card(), tmp_path / name) for name in ("a.pt", "another-name.pt")]
    assert rows[0].sha256 == rows[1].sha256


def test_a_network_takes_any_batch_size_once_loaded(tmp_path: Path) -> None:
    network = load_model(tmp_path / write_models(tmp_path).name, CPU, "fp32").network
    for count in (1, 4, 3):
        probability, score, heatmap = network(torch.zeros(count, 1, INPUT_SIZE, INPUT_SIZE, dtype=torch.uint8))
        assert (probability.shape, score.shape, heatmap.shape) == ((count,), (count,), (count, 4, 4))


def refused(path: Path, sha256: str | None = None) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_model(path, CPU, "fp32", sha256)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_another_file_than_the_manifests_is_refused(tmp_path: Path) -> None:
    row = write_models(tmp_path)
    assert "not the file that was released" in refused(tmp_path / row.name, "0" * 64)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / write_models(tmp_path).name
    path.write_bytes(path.read_bytes()[:-1000])
    assert "not a readable TorchScript archive" in refused(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "can't read the model file: No such file" in refused(tmp_path / "gone.pt")


def test_an_archive_without_a_card_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare.pt"
    torch.jit.save(torch.jit.script(TinyNetwork()), str(path))
    assert "no card.json inside" in refused(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 2}, "schema_version: Input should be 1 (found '2')"),
        ({"threshold": 1.5}, "threshold: Input should be less than or equal to 1"),
        ({"resize": "crop"}, "resize: Input should be 'bilinear-antialias-stretch' (found 'crop')"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
    ],
)
def test_a_card_of_another_schema_is_refused_with_what_was_found(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "odd.pt"
    card = json.dumps(tiny_card().model_dump(mode="json") | change)
    torch.jit.save(torch.jit.script(TinyNetwork()), str(path), _extra_files={"card.json": card})
    assert message in refused(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "can't read the manifest: No such file"),
        ("{", "Invalid JSON"),
        ('{"files": []}', "schema_version: Field required"),
        ('{"schema_version": 9, "files": []}', "schema_version: Input should be 1 (found '9')"),
        ('{"schema_version": 1, "files": []}', "files: Tuple should have at least 1 item"),
    ],
)
def test_a_manifest_that_can_not_be_used_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ModelFileError) as caught:
        read_manifest(tmp_path)
    assert message in str(caught.value)
    assert "metrics.json" in str(caught.value)


def test_the_synthetic_slice_is_the_same_on_every_machine() -> None:
    """Pinned: a model file's self-check, written on one machine, must be right on another."""
    digest = hashlib.sha256(synthetic_slice(SELF_CHECK_SEED, INPUT_SIZE).tobytes()).hexdigest()
    assert digest == "de9b4d6fdc818bee7e7251604ec68017ddfbeb7d023db4d3376dc9207d80f88b"
    assert synthetic_slice(SELF_CHECK_SEED, INPUT_SIZE).shape == (1, INPUT_SIZE, INPUT_SIZE)
    assert not (synthetic_slice(1, 32) == synthetic_slice(2, 32)).all()
