"""Packed convolutions answer like plain ones. Frozen graphs come from `torch.jit`, as in a model file."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from service.model.convolutions import pack_convolutions

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")  # type: ignore[no-untyped-call]


class Network(nn.Module):
    """ReLU after a convolution, a convolution without, strides, groups, and a result with two users."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.strided = nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.narrow = nn.Conv2d(16, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = self.strided(x)
        x = torch.relu(x) + x
        x = self.grouped(x).relu_()
        narrow: torch.Tensor = self.narrow(x)
        return narrow


def frozen(network: nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.freeze(torch.jit.script(network.eval()))


def kinds(network: Any, kind: str) -> int:
    return len(network.graph.findAllNodes(kind))


@pytest.mark.parametrize("batch", [1, 3])
def test_packed_convolutions_answer_like_plain_ones(batch: int) -> None:
    plain, packed = frozen(Network()), frozen(Network())
    pack_convolutions(packed, torch.float32)
    assert kinds(packed, "mkldnn::_convolution_pointwise") == 3
    assert kinds(packed, "aten::conv2d") == 1, "grouped ones stay"
    assert kinds(plain, "aten::relu") - kinds(packed, "aten::relu") == 1, "not the one whose input has another user"
    picture = torch.rand(batch, 3, 24, 32).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.allclose(packed(picture), plain(picture), atol=1e-5)
        assert torch.allclose(packed(picture[:1]), plain(picture[:1]), atol=1e-5), "another batch size"


def test_the_plain_weights_are_not_kept() -> None:
    network = frozen(Network())
    pack_convolutions(network, torch.float32)
    held = [node.output().toIValue() for node in network.graph.findAllNodes("prim::Constant")]
    sizes = sorted(tuple(each.shape) for each in held if isinstance(each, torch.Tensor) and each.dim() == 4)
    assert sizes == [(16, 4, 3, 3)], "the grouped one's"


def test_weights_of_another_dtype_stay() -> None:
    network = frozen(Network())
    pack_convolutions(network, torch.bfloat16)
    assert kinds(network, "aten::conv2d") == 4
