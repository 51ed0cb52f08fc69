"""Networks as ONNX, for the browser."""

from __future__ import annotations

import contextlib
import io
import warnings

import torch
from torch import Tensor, nn

OPSET = 17


def as_onnx(network: nn.Module, given: tuple[Tensor, ...], inputs: list[str], outputs: list[str]) -> bytes:
    """A network as ONNX, for inputs of the shapes given. Raises ImportError without the package onnx."""
    import onnx  # noqa: F401 -- what the exporter would miss later, in more words

    file = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of the checks of inputs, which are left out of the graph
        names = {"input_names": inputs, "output_names": outputs}
        torch.onnx.export(network, given, file, dynamo=False, opset_version=OPSET, **names)
    return file.getvalue()
