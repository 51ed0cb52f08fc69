"""Cut a network into blocks where one tensor carries the whole computation.

Divide-and-conquer inversion (Dong et al. 2021, arXiv 2107.06304) needs f = f_N ∘ … ∘ f_1 with shallow f_k. The model is traced by
torch.fx; a cut is possible after every operation that leaves exactly one tensor alive, which all later operations read. What
lies between two neighbouring cuts (one operation, or a residual, dense or inception unit) is a *segment*; segments are joined into
blocks by the rules of `_join`. Parameters are shared with the model, never copied.
"""

from dataclasses import dataclass, field

import torch
from timm.layers import get_notrace_functions, is_notrace_module
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata

TOLERANCE = 1e-4  # of the largest output: blocks by hand may add up in another order, a wrong block is off by far more


class Block(nn.Module):
    """One piece f_k of a network: `block(h)` maps the output of block k-1 to the output of block k, for any batch size.

    depth: k, from 1.  name: path of the module it stands for.  shape: output without the batch, (C, H, W) or (C,), at the size
    the model was partitioned with.  convolutions: Conv2d (and ConvTranspose2d) of blocks 1 … k, parallel branches included.
    stride: input side / output side, rounded; the whole side for an output without a map, below 1 for a generator.
    """

    def __init__(self, body: nn.Module, depth: int, name: str, shape: tuple[int, ...], convolutions: int, stride: float):
        super().__init__()
        self.body, self.depth, self.name = body, depth, name
        self.shape, self.convolutions, self.stride = shape, convolutions, stride
        self.eval()

    def forward(self, h: Tensor) -> Tensor:
        return self.body(h)

    def train(self, mode: bool = True) -> "Block":
        """A block is part of a frozen network: it stays in eval mode, whatever trains around it."""
        return super().train(False)

    def extra_repr(self) -> str:
        return f"{self.depth}: {self.name} -> {self.shape}, {self.convolutions} convolutions, stride {self.stride:g}"


def partition(model: nn.Module, example_input: Tensor) -> list[Block]:
    """Blocks whose composition is `model` (in eval mode), cut as finely as one tensor allows.

    example_input: a batch as the model takes it, (N, 3, H, W) for a classifier; it gives the blocks' shapes and checks the
    composition. Raises ValueError for a model that torch.fx cannot trace or that does not return one tensor.
    """
    if model.training:
        raise ValueError("The model is in training mode: call model.eval() before cutting it into blocks.")
    graph = _trace(model)
    with torch.no_grad():
        ShapeProp(fx.GraphModule(model, graph)).propagate(example_input)
    groups = _join(_segments(graph), model)
    return compose([(_name(group, graph, model), _extract(group, model)) for group in groups], model, example_input)


def compose(named: list[tuple[str, nn.Module]], model: nn.Module, example_input: Tensor) -> list[Block]:
    """Blocks from (name, module) pairs, after checking on `example_input` that applying them in turn gives the model's output."""
    blocks, convolutions, h = [], 0, example_input
    with torch.no_grad():
        for depth, (name, body) in enumerate(named, start=1):
            try:
                h = body(h)
            except Exception as error:
                raise ValueError(f"Block {depth} ({name}) does not take the output of the block before it: {error}") from error
            convolutions += sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in body.modules())
            stride = example_input.shape[-1] / (h.shape[-1] if h.dim() == 4 else 1)
            stride = round(stride) if stride >= 1 else stride
            blocks.append(Block(body, depth, name, tuple(h.shape[1:]), convolutions, stride))
        output = model(example_input)
    if h.shape != output.shape or not (h - output).abs().max() <= TOLERANCE * output.abs().max():
        raise ValueError(
            f"The {len(blocks)} blocks do not compose to the model: applied in turn they must give the model's own output; "
            "check that every operation of its forward() is in exactly one block."
        )
    return blocks


# ---- tracing -----------------------------------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    """Operations are leaves: modules without children, convolutions and norms of any library, and what timm asks not to trace."""

    def __init__(self):
        super().__init__(autowrap_functions=tuple(get_notrace_functions()))

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        operations = nn.modules.conv._ConvNd | nn.modules.batchnorm._NormBase
        childless = next(module.children(), None) is None
        return childless or isinstance(module, operations) or is_notrace_module(module) or super().is_leaf_module(module, path)


def _trace(model: nn.Module) -> fx.Graph:
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever a forward() does with a symbolic tensor
        raise ValueError(
            f"{type(model).__name__} cannot be traced by torch.fx ({str(error).splitlines()[0] if str(error) else error!r}): "
            'pass its blocks by hand, Classifier(..., blocks=[("name", module), ...]), where the modules applied in turn are the model.'
        ) from error
    inputs = [node for node in graph.nodes if node.op == "placeholder" and node.users]
    output = next(node for node in graph.nodes if node.op == "output").args[0]
    if len(inputs) != 1 or not isinstance(output, fx.Node):
        raise ValueError(f"{type(model).__name__} must read one tensor and return one: wrap it in a module that picks the logits.")
    return graph


# ---- cutting -----------------------------------------------------------------------------------------------------------------


@dataclass
class _Segment:
    """The nodes between two neighbouring cuts: `output` of it is all that later nodes read, `source` all it reads itself."""

    source: fx.Node
    nodes: list[fx.Node]

    @property
    def output(self) -> fx.Node:
        return self.nodes[-1]


def _segments(graph: fx.Graph) -> list[_Segment]:
    """Cut after every node that leaves itself alone alive; sizes and other non-tensors count as alive, parameters do not."""
    nodes = list(graph.nodes)
    position = {node: i for i, node in enumerate(nodes)}
    alive, segments, source, pending = set(), [], None, []
    for i, node in enumerate(nodes[:-1]):
        if node.op == "placeholder":
            source = node if node.users else source
        else:
            pending.append(node)
        if node.op != "get_attr" and node.users:  # a parameter is fetched again by each block that reads it
            alive.add(node)
        alive = {n for n in alive if max(position[user] for user in n.users) > i}
        if alive == {node} and pending and isinstance(node.meta.get("tensor_meta"), TensorMetadata):
            segments.append(_Segment(source, pending))
            source, pending = node, []
    return segments


# ---- joining -----------------------------------------------------------------------------------------------------------------


@dataclass
class _Group:
    """Segments that make one block; `core` are those with weights, which name it."""

    segments: list[_Segment]
    core: list[_Segment] = field(default_factory=list)
    kind: str = ""  # see _kind


def _join(segments: list[_Segment], model: nn.Module) -> list[_Group]:
    """Every segment with a weight matrix opens a block, and the others join one:

    - element-wise operations, norms and gates x·g(x) (squeeze-excite) join the block before; but a norm that follows a merge (residual
      sum, concatenation) belongs to the pre-activated convolution after it;
    - pooling, flattening and what else changes the shape joins the block after, trailing ones the last block;
    - a depthwise convolution takes the pointwise ones directly around it: inverted bottlenecks are whole with or without a skip.
    """
    groups, waiting = [], []
    for segment in segments:
        kind = _kind(segment, model)
        if kind in ("pointwise", "depthwise", "dense", "unit"):
            before = groups[-1].kind if groups and not waiting else ""
            if (before, kind) in (("pointwise", "depthwise"), ("depthwise", "pointwise")):
                groups[-1].segments.append(segment)
                groups[-1].core.append(segment)
                groups[-1].kind = "depthwise" if kind == "depthwise" else "dense"  # dense: full, takes no further pointwise one
            else:
                groups.append(_Group([*waiting, segment], [segment], kind))
            waiting = []
        elif not groups or waiting or kind == "reshape" or (kind == "norm" and groups[-1].kind == "unit"):
            waiting.append(segment)
        else:
            groups[-1].segments.append(segment)
    if not groups:
        raise ValueError("The model has no weights between two points where one tensor carries everything: pass its blocks by hand.")
    groups[-1].segments += waiting
    return groups


def _kind(segment: _Segment, model: nn.Module) -> str:
    weighted = [node for node in segment.nodes if _is_weighted(node, model)]
    label = _label(segment.output, model)
    if not weighted:
        same = _shape(segment.output) == _shape(segment.source)
        return "reshape" if "pool" in label or not same else "norm" if "norm" in label else "elementwise"
    if segment.output is not weighted[-1]:
        return "gate" if label in ("mul", "mul_") and segment.source in segment.output.all_input_nodes else "unit"
    conv = model.get_submodule(segment.output.target) if segment.output.op == "call_module" else None
    if len(weighted) > 1 or not isinstance(conv, nn.Conv2d):
        return "dense"
    if conv.groups == conv.in_channels > 1:
        return "depthwise"
    return "pointwise" if conv.kernel_size == (1, 1) else "dense"


def _is_weighted(node: fx.Node, model: nn.Module) -> bool:
    if node.op == "call_module":
        return "norm" not in _label(node, model) and any(p.dim() > 1 for p in model.get_submodule(node.target).parameters())
    return _label(node, model) in ("conv2d", "linear", "matmul")


def _label(node: fx.Node, model: nn.Module) -> str:
    """Lower-case name of the operation: class of a module, name of a function or method."""
    if node.op == "call_module":
        return type(model.get_submodule(node.target)).__name__.lower()
    return str(getattr(node.target, "__name__", node.target)).lower()


def _shape(node: fx.Node) -> torch.Size:
    return node.meta["tensor_meta"].shape


# ---- building ----------------------------------------------------------------------------------------------------------------


def _extract(group: _Group, model: nn.Module) -> fx.GraphModule:
    """The group's nodes as a module of one input, sharing the model's parameters."""
    graph = fx.Graph()
    copies = {group.segments[0].source: graph.placeholder("h")}

    def copy_of(node: fx.Node) -> fx.Node:
        if node not in copies:  # a parameter that was first fetched in an earlier block
            copies[node] = graph.node_copy(node)
        return copies[node]

    for node in (node for segment in group.segments for node in segment.nodes):
        copies[node] = graph.node_copy(node, copy_of)
    graph.output(copies[group.segments[-1].output])
    return fx.GraphModule(model, graph, class_name="BlockBody")


def _name(group: _Group, graph: fx.Graph, model: nn.Module) -> str:
    """Path of the outermost module that lies wholly inside the block and holds all of its weights."""
    core = [_path(node).split(".") for segment in group.core for node in segment.nodes if node.op != "get_attr"]
    common = [level[0] for level in _while_equal(zip(*core, strict=False))]
    inside = {node for segment in group.segments for node in segment.nodes}
    outside = [_path(node) + "." for node in graph.nodes if node not in inside and node.op not in ("placeholder", "output")]
    for length in range(1, len(common)):
        path = ".".join(common[:length])
        container = type(model.get_submodule(path)) is nn.Sequential  # a row of units, not one
        if not container and not any(other.startswith(path + ".") for other in outside):
            return path
    return ".".join(common) or group.core[0].output.name


def _while_equal(levels):
    for level in levels:
        if len(set(level)) > 1:
            return
        yield level


def _path(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack")
    return next(reversed(stack.values()))[0] if stack else ""
