"""Networks as ONNX for the browser, and their weights in fewer bits.

Weights that `invkit.store.round_in_place` has rounded are stored as what they were rounded to, with nodes that widen
them to 32 bits again; onnxruntime computes these once, when it loads the network. So PyTorch and the browser compute
with the same weights.
"""

from __future__ import annotations

import contextlib
import io
import warnings

import torch
from torch import Tensor, nn

from invkit.store import to_eight_bits

OPSET = 17
FEW = 1000  # numbers of a tensor that is stored as it is


def as_onnx(network: nn.Module, given: tuple[Tensor, ...], inputs: list[str], outputs: list[str]) -> bytes:
    """A network as ONNX, for inputs of the shapes given. Raises ImportError without the package onnx."""
    import onnx

    file = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of the checks of inputs, which are left out of the graph
        names = {"input_names": inputs, "output_names": outputs}
        as_it_is = torch.onnx.TrainingMode.PRESERVE  # weights that norms are not folded into
        torch.onnx.export(network, given, file, dynamo=False, opset_version=OPSET, training=as_it_is, **names)
    model = onnx.load_from_string(file.getvalue())
    _store_in_few_bits(model.graph)
    return model.SerializeToString()


def _store_in_few_bits(graph) -> None:
    """In an ONNX graph, store each convolution's weight that was rounded as a half, or as bytes and their units."""
    from onnx import TensorProto, helper, numpy_helper

    weights = {node.input[1]: node for node in graph.node if node.op_type == "Conv"}
    widened = []
    for stored in list(graph.initializer):
        weight = torch.from_numpy(numpy_helper.to_array(stored).copy())
        if stored.name not in weights or weight.numel() <= FEW:
            continue
        whole, scale = to_eight_bits(weight)
        name, inputs = stored.name, [f"{stored.name}.small"]
        if torch.equal(weight.half().float(), weight):
            small = {inputs[0]: weight.half()}
            widened.append(helper.make_node("Cast", inputs, [name], to=TensorProto.FLOAT))
        elif torch.allclose(whole * scale.float(), weight, rtol=1e-5, atol=0):
            small = {inputs[0]: whole, f"{name}.scale": scale.float()}
            widened.append(helper.make_node("Cast", inputs, [f"{name}.whole"], to=TensorProto.FLOAT))
            widened.append(helper.make_node("Mul", [f"{name}.whole", f"{name}.scale"], [name]))
        else:
            continue
        graph.initializer.remove(stored)
        graph.initializer.extend(numpy_helper.from_array(value.numpy(), key) for key, value in small.items())
    nodes = [*widened, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
