import pytest
import torch

from service.model.file import without_deprecation_warnings
from service.model.hardware import int8_packed_by_onednn


def test_int8_packed_by_onednn_overflows_with_no_7_bit_activations() -> None:
    """The largest products of 512 channels, as without VNNI two of them are added in 16 bits."""
    channels = 512
    picture, weight = torch.full((1, channels, 8, 8), 127.0), torch.full((16, channels, 3, 3), 127.0)
    weight[1::2] = -128.0
    with without_deprecation_warnings(), int8_packed_by_onednn():
        quantised = torch.quantize_per_tensor(picture, 1.0, 0, torch.quint8)
        weights = torch.quantize_per_tensor(weight, 1.0, 0, torch.qint8)
        packed = torch.ops.quantized.conv2d_prepack(weights, None, [1, 1], [1, 1], [1, 1], 1)
        scale = channels * 9 * 128 * 127 / 255
        answer = torch.ops.quantized.conv2d(quantised, packed, 2 * scale, 128).dequantize()
    exact = torch.nn.functional.conv2d(picture.double(), weight.double(), padding=1)
    assert (answer - exact).abs().max() <= scale * 1.01, "rounded to a step of the output, not overflowed"


def test_torchs_choice_for_other_networks_of_the_process_stays() -> None:
    before = torch.backends.quantized.engine
    with int8_packed_by_onednn():
        assert torch.backends.quantized.engine == ("onednn" if before == "x86" else before)
    with pytest.raises(ValueError, match="damaged"), int8_packed_by_onednn():
        raise ValueError("damaged")
    assert torch.backends.quantized.engine == before
