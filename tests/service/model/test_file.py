import hashlib
import io
import zipfile
from pathlib import Path

import pytest
import torch

from service.errors import ModelFileError
from service.model.file import load_model, model_bytes, synthetic_slice
from tests.support.networks.tiny import INPUT_SIZE, SELF_CHECK_SEED, TinyNetwork, tiny_card, write_models

CPU = torch.device("cpu")


def test_what_is_saved_is_loaded_with_its_card(tmp_path: Path) -> None:
    row = write_models(tmp_path)
    artifact = load_model(tmp_path / row.name, CPU, "fp32", row.sha256)
    assert artifact.card == tiny_card()
    assert artifact.sha256 == row.sha256 == hashlib.sha256((tmp_path / row.name).read_bytes()).hexdigest()
    batch = torch.from_numpy(synthetic_slice(3, INPUT_SIZE))[None]
    answer, expected = artifact.network(batch), TinyNetwork().eval()(batch)
    assert answer.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(answer[name], value, rtol=0, atol=1e-3)


def test_the_same_network_gives_the_same_bytes() -> None:
    assert len({model_bytes(TinyNetwork().eval(), tiny_card()) for _ in range(2)}) == 1


@pytest.mark.parametrize(("precision", "stored"), [("int8", False), ("fp16", True)])
def test_weights_are_compressed_in_int8_alone(tmp_path: Path, precision: str, stored: bool) -> None:
    row = write_models(tmp_path, tiny_card().model_copy(update={"precision": precision}))
    with zipfile.ZipFile(tmp_path / row.name) as archive:
        compressions = {member.compress_type for member in archive.infolist()}
    assert compressions == {zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED}


def test_a_model_file_has_no_paths_of_the_machine_that_wrote_it() -> None:
    with zipfile.ZipFile(io.BytesIO(model_bytes(TinyNetwork().eval(), tiny_card()))) as archive:
        members = [archive.read(member) for member in archive.infolist()]
    assert not any(str(Path(__file__).parents[3]).encode() in member for member in members)


def test_a_network_takes_any_batch_size_once_loaded(tmp_path: Path) -> None:
    network = load_model(tmp_path / write_models(tmp_path).name, CPU, "fp32").network
    for count in (1, 4, 3):
        outputs = network(torch.zeros(count, 1, INPUT_SIZE, INPUT_SIZE, dtype=torch.uint8))
        assert outputs["probability"].shape == (count,)
        assert outputs["heatmap"].shape == (count, 4, 4)


def refused(path: Path, sha256: str | None = None) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_model(path, CPU, "fp32", sha256)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


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


def test_the_synthetic_slice_is_the_same_on_every_machine() -> None:
    """Pinned: a model file's self-check, written on one machine, must be right on another."""
    digest = hashlib.sha256(synthetic_slice(SELF_CHECK_SEED, INPUT_SIZE).tobytes()).hexdigest()
    assert digest == "de9b4d6fdc818bee7e7251604ec68017ddfbeb7d023db4d3376dc9207d80f88b"
    assert synthetic_slice(SELF_CHECK_SEED, INPUT_SIZE).shape == (1, INPUT_SIZE, INPUT_SIZE)
    assert not (synthetic_slice(1, 32) == synthetic_slice(2, 32)).all()
