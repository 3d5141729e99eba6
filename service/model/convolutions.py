"""Convolutions of a frozen graph, with weights in oneDNN's own order and ReLU inside."""

from typing import Any, Final

import torch
from torch import _C

_ARGUMENTS: Final = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
"""Inputs of aten::conv2d."""


def pack_convolutions(network: Any, dtype: torch.dtype) -> None:
    """Replace the convolutions of a frozen network on the CPU by oneDNN's, in place, before its first run.

    `aten::conv2d` brings the weights into oneDNN's order at every call and leaves ReLU to another pass over the result:
    3 to 4 % of the time of a pass. Answers change in the sixth digit at most.

    Args:
        network: a frozen ScriptModule; its first run compiles the graph.
        dtype: of the weights that are packed: float32, or bfloat16 where the processor multiplies it in hardware.
    """
    graph = network.graph
    for node in graph.findAllNodes("aten::conv2d"):
        _pack(graph, node, dtype)


def _pack(graph: Any, node: Any, dtype: torch.dtype) -> None:
    inputs = dict(zip(_ARGUMENTS, node.inputs(), strict=True))
    values = {name: value.toIValue() for name, value in inputs.items() if name != "input"}
    weight = values["weight"]
    if weight is None or weight.dtype != dtype or values["groups"] != 1:
        return
    packed = _C._nn.mkldnn_reorder_conv2d_weight(  # noqa: SLF001 - torch has no public name for it
        weight.to_mkldnn(), values["padding"], values["stride"], values["dilation"], 1
    )
    relu = _only_user(node, ("aten::relu", "aten::relu_"))
    # its arguments beside those of the convolution: kind, scalars and algorithm of the function that follows
    graph.setInsertPoint(node)
    scalars = graph.insertNode(graph.create("prim::ListConstruct", [], 1)).output()
    scalars.setType(_C.ListType(_C.OptionalType(_C.NumberType.get())))
    kind, algorithm = graph.insertConstant("none" if relu is None else "relu"), graph.insertConstant("")
    # ordinary constants hold tensors with plain storage alone
    held = graph.insertNode(graph.create("prim::ConstantMKLDNNTensor", [], 1).t_("value", packed))
    fused = graph.create(
        "mkldnn::_convolution_pointwise",
        [
            inputs["input"],
            held.output(),
            *(inputs[name] for name in ("bias", "padding", "stride", "dilation", "groups")),
            kind,
            scalars,
            algorithm,
        ],
        1,
    )
    graph.insertNode(fused)
    replaced = node if relu is None else relu
    fused.output().setType(replaced.output().type())
    replaced.output().replaceAllUsesWith(fused.output())
    replaced.destroy()
    if relu is not None:
        node.destroy()
    if not inputs["weight"].uses():
        inputs["weight"].node().destroy()  # at once, so that few weights are held twice


def _only_user(node: Any, kinds: tuple[str, ...]) -> Any | None:
    users = [use.user for use in node.output().uses()]
    return users[0] if len(users) == 1 and users[0].kind() in kinds else None
