"""Cut a network into blocks where one tensor carries the whole computation.

Divide-and-conquer inversion (Dong et al. 2021, arXiv 2107.06304) needs f = f_N ∘ … ∘ f_1 with shallow f_k. torch.fx
records the operations of the model in order; those that the output does not depend on, such as an unused head, are left
out. After an operation whose result is all that later ones use, the network can be cut. What lies between two
neighbouring cuts (one operation, or a whole residual, dense or inception unit) is a *segment* here; `join` says which
segments make a block. Blocks share the model's parameters.
"""

import inspect
import math
import operator
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp, TensorMetadata

AUGMENTED = {
    operator.setitem,
    *(getattr(operator, f"i{name}") for name in "add sub mul truediv floordiv mod pow".split()),
}
TOLERANCE = 1e-5  # of the model's largest output
_LENT: Counter[nn.Module] = Counter()  # modules of training owners: how many calls hold them in eval mode now
_LENDING = threading.Lock()
BY_HAND = 'pass its blocks by hand, Classifier(..., blocks=[("name", module), ...])'


class Block(nn.Module):
    """One piece f_k of a network: `block(h)` maps the output of block k-1 to the output of block k, for any batch size.

    Attributes:
        depth: k, from 1.
        name: path of the module it stands for.
        shape: of the output without the batch, (C, H, W) or (C,), at the size the model was partitioned with.
        convolutions: how many two-dimensional ones blocks 1 to k hold, parallel branches included.
        stride: input side / output side, rounded (exact below 1, as in a generator); the side of a vector is 1, that of
            T tokens the root of T.
        dtype: in which the network computes; None for float32. What a block takes and returns is float32 in any case.
        contiguous: whether the network takes its maps in the usual order of memory only.
        in_place: whether its operations change what they are given; they are then given a copy.
    """

    dtype: torch.dtype | None = None
    contiguous = in_place = False

    def __init__(
        self, body: nn.Module, depth: int, name: str, shape: tuple[int, ...], convolutions: int, stride: float
    ):
        super().__init__()
        self.body, self.depth, self.name = body, depth, name
        self.shape, self.convolutions, self.stride = shape, convolutions, stride
        self.eval()

    @property
    def invertible(self) -> bool:
        """Whether an inverse of this block's output can be trained: of a square map (C, H, H) or (H, H, C), or tokens
        (T, C), but not of a vector."""
        return _is_map_or_tokens(self.shape)

    def forward(self, h: Tensor) -> Tensor:
        h = h.clone() if self.in_place else h
        h = h.contiguous() if self.contiguous else h
        with evaluating(self):
            return self.body(h) if self.dtype is None else self.body(h.to(self.dtype)).float()

    def train(self, mode: bool = True) -> "Block":
        """A block is part of a frozen network: it stays in eval mode, whatever trains around it."""
        return super().train(False)

    def extra_repr(self) -> str:
        return f"{self.depth}: {self.name} -> {self.shape}, {self.convolutions} convolutions, stride {self.stride:g}"


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Let a network compute as in eval mode, whatever its owner has set; its modules' modes come back afterwards."""
    with _LENDING:
        lent = [module for module in network.modules() if module.training or module in _LENT]
        _LENT.update(lent)
        for module in lent:
            module.training = False
    try:
        yield
    finally:
        with _LENDING:
            _LENT.subtract(lent)
            for module in [module for module in lent if not _LENT[module]]:
                module.training = True
                del _LENT[module]


def _is_map_or_tokens(shape: Sequence[int]) -> bool:
    return len(shape) == 2 or (len(shape) == 3 and (shape[1] == shape[2] or shape[0] == shape[1]))


def partition(model: nn.Module, example_input: Tensor) -> list[Block]:
    """Blocks whose composition is `model`, as shallow as the rules of `join` allow.

    Args:
        model: in eval mode.
        example_input: a batch as the model takes it, (N, 3, H, W) for a classifier. It gives the blocks' shapes and
            checks that they compose to the model.

    Raises:
        ValueError: a model that torch.fx cannot trace, or whose output is not one tensor.
    """
    return partition_and_miss(model, example_input)[0]


def partition_and_miss(model: nn.Module, example_input: Tensor) -> tuple[list[Block], bool]:
    """As `partition`; and whether there may be more places to cut, which torch.fx does not see.

    A size that is used later hides them, or a stack that is recorded whole, as nn.TransformerEncoder.
    """
    if model.training:
        raise ValueError("The model is in training mode: call model.eval() before cutting it into blocks.")
    graph = _trace(model)
    with torch.no_grad():
        ShapeProp(fx.GraphModule(model, graph)).propagate(example_input)
    segments, missed = _segments(graph)
    called = [model.get_submodule(str(node.target)) for node in graph.nodes if node.op == "call_module"]
    missed = missed or any(isinstance(child, nn.ModuleList) for module in called for child in module.children())
    shapes = [segment.output.meta["tensor_meta"].shape for segment in segments]
    groups = join(segments, [_kind(segment, model) for segment in segments], shapes, len(example_input))
    if not groups:
        raise ValueError(f"{type(model).__name__} has no convolution or linear map to cut at: {BY_HAND}.")
    named = [(_name(group, graph, model), _extract(group, model)) for group in groups]
    return compose(named, model, example_input), missed


def compose(
    named: list[tuple[str, nn.Module]], model: Callable[[Tensor], Tensor], example_input: Tensor
) -> list[Block]:
    """Blocks from (name, module) pairs; ValueError unless, applied in turn, they give the model's output."""
    blocks, convolutions, h = [], 0, example_input
    with torch.no_grad():
        for depth, (name, body) in enumerate(named, start=1):
            before, given = h, h.clone()
            try:
                h = body(given)
                shape = tuple(h.shape[1:])
            except Exception as error:
                raise ValueError(f"Block {depth} ({name}) does not map its input to one tensor: {error}") from error
            convolutions += sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in body.modules())
            stride = _side(example_input) / _side(h)
            blocks.append(Block(body, depth, name, shape, convolutions, round(stride) if stride > 1 else stride))
            blocks[-1].in_place = not torch.equal(before, given)
        output = model(example_input)
    if not close(h, output):
        raise ValueError(
            f"The {len(blocks)} blocks applied in turn do not give the model's output: "
            "put every operation of its forward() into exactly one block, in order."
        )
    return blocks


def close(a: Tensor, b: Tensor) -> bool:
    """Whether two outputs are one up to rounding, in the precision that they have."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    tolerance = max(TOLERANCE, 8 * torch.finfo(b.dtype).eps) if b.is_floating_point() else 0
    return bool((a - b).abs().max() <= tolerance * b.abs().max())  # NaN is close to nothing


def _side(h: Tensor) -> int:
    if h.dim() == 3:
        return math.isqrt(h.shape[1])
    if h.dim() == 4:
        return h.shape[1] if h.shape[1] == h.shape[2] != h.shape[3] else h.shape[-1]
    return 1


# ---- tracing ---------------------------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    """Records whole: modules without children, convolutions and norms of any library, what timm asks not to trace."""

    def __init__(self) -> None:
        self.timm = sys.modules.get("timm.layers")  # a model of timm's has imported it; others need not wait for it
        super().__init__(autowrap_functions=tuple(self.timm.get_notrace_functions()) if self.timm else ())

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        if isinstance(module, nn.modules.conv._ConvNd | nn.modules.batchnorm._NormBase):
            return True
        if self.timm and self.timm.is_notrace_module(module):
            return True
        return not any(True for _ in module.children()) or super().is_leaf_module(module, path)


def _trace(model: nn.Module) -> fx.Graph:
    """The operations of model.forward(x), its optional arguments at their defaults."""
    parameters = inspect.signature(model.forward).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    try:
        graph = _Tracer().trace(model, concrete_args=defaults)
    except Exception as error:  # whatever a forward() may do to a symbolic tensor
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{type(model).__name__} cannot be traced by torch.fx ({reason}): {BY_HAND}.") from error
    for argument in [node for node in graph.nodes if node.op == "placeholder"][1:]:
        for check in list(argument.users):  # fx asserts that it has its default: "x == default", "assert that"
            for user in list(check.users):
                graph.erase_node(user)
            graph.erase_node(check)
        graph.erase_node(argument)
    if not isinstance(graph.output_node().args[0], fx.Node):
        raise ValueError(f"{type(model).__name__} does not return one tensor: wrap it in a module that picks one.")
    _erase_unused(graph, model)
    return graph


# ---- what the output does not depend on ------------------------------------------------------------------------------


def _erase_unused(graph: fx.Graph, model: nn.Module) -> None:
    """Erase the operations that the output does not depend on, such as those of an unused head.

    torch.fx has `eliminate_dead_code`, but it would also erase an operation that changes its input in place and whose
    result is not used, although later operations use that input. Such an operation is kept here where a later one that
    is kept may use the same memory.
    """
    memory = _shared_memory(graph, model)
    kept: set[fx.Node] = set()
    used: set[fx.Node] = set()  # the memory of all operations kept so far, which come later
    for node in reversed(graph.nodes):
        needed = node.op in ("placeholder", "output") or any(user in kept for user in node.users)
        asserts = node.op == "call_function" and node.is_impure(impure_random=False)
        if needed or asserts or (_in_place(node, model) and not used.isdisjoint(memory[node])):
            kept.add(node)
            used = used.union(*(memory[source] for source in node.all_input_nodes))
    for node in reversed(list(graph.nodes)):
        if node not in kept:
            graph.erase_node(node)


def _in_place(node: fx.Node, model: nn.Module) -> bool:
    """Whether the operation may change its first input."""
    if node.op == "call_module":
        return bool(getattr(model.get_submodule(str(node.target)), "inplace", False))
    name = getattr(node.target, "__name__", str(node.target))
    named_so = node.op in ("call_function", "call_method") and name.endswith("_") and not name.endswith("__")
    return named_so or node.target in AUGMENTED or bool(node.kwargs.get("inplace")) or "out" in node.kwargs


def _shared_memory(graph: fx.Graph, model: nn.Module) -> dict[fx.Node, set[fx.Node]]:
    """For each operation those whose results may lie in the same memory: itself, and its inputs' unless it copies."""
    memory: dict[fx.Node, set[fx.Node]] = {}
    for node in graph.nodes:
        module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
        copies = isinstance(module, nn.modules.conv._ConvNd | nn.modules.batchnorm._NormBase | nn.Linear)
        memory[node] = {node}.union(*(memory[source] for source in node.all_input_nodes if not copies))
    return memory


# ---- cutting ---------------------------------------------------------------------------------------------------------


@dataclass
class _Segment:
    """The operations between two neighbouring cuts: they use `source` only, and later ones use their last only."""

    source: fx.Node
    nodes: list[fx.Node]

    @property
    def output(self) -> fx.Node:
        return self.nodes[-1]


def _segments(graph: fx.Graph) -> tuple[list[_Segment], bool]:
    """Cut after every operation that leaves its own result as the only one still to be used.

    A size or a tuple that is still to be used forbids the cut as a tensor does; a parameter does not, since any block
    can fetch it. Also returned is whether only such values have forbidden a cut as are not computed from the image's.
    """
    source, *nodes, _ = graph.nodes
    position = {node: i for i, node in enumerate(graph.nodes)}
    last_use = {node: max((position[user] for user in node.users), default=0) for node in graph.nodes}
    alive, segments, pending, missed = {source}, [], [], False
    of_image = {source}
    for node in nodes:
        pending.append(node)
        alive.add(node)
        alive = {n for n in alive if last_use[n] > position[node] and n.op != "get_attr"}
        if alive == {node} and _is_tensor(node):
            segments.append(_Segment(source, pending))
            source, pending = node, []
        if _is_tensor(node) and not of_image.isdisjoint(node.all_input_nodes):
            of_image.add(node)
        missed |= len(alive) > 1 and alive & of_image == {node}
    return segments, missed


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("tensor_meta"), TensorMetadata)


# ---- joining ---------------------------------------------------------------------------------------------------------


@dataclass
class Group:
    """Segments that make one block. core: those with weights; kind: of the last of them (`join`)."""

    segments: list[Any]
    core: list[Any]
    kind: str

    def extend(self, segment: Any) -> None:
        self.segments.append(segment)
        self.core.append(segment)


def join(segments: Sequence[Any], kinds: Sequence[str], shapes: Sequence[Sequence[int]], batch: int) -> list[Group]:
    """Every segment with a weight matrix (convolution, linear map, unit of several branches) opens a block, except:

    - a depthwise convolution takes the pointwise ones directly around it: an inverted bottleneck is whole with or
      without a skip;
    - a gate x·g(x), squeeze-excite, joins the block before.
    Of the others, element-wise operations and norms join the block before, but a norm right after a branching unit
    opens the block after (pre-activation); pooling, flattening and all that changes the shape opens the block after,
    or ends the last one. A block whose output is neither a map, tokens (T, C) nor a vector of each image, but as
    windows of it, takes what makes it so, or else the next block.

    Args:
        segments: in the order in which they compute.
        kinds: of each, one of "depthwise", "pointwise", "other weights", "unit", "gate", "norm", "elementwise" and
            "reshaping".
        shapes: of the outputs of each, with the batch.
        batch: number of images.

    Returns:
        A group for each block; none where no segment has weights.
    """
    groups: list[Group] = []
    waiting: list[Any] = []
    for segment, kind in zip(segments, kinds, strict=True):
        before = groups[-1].kind if groups and not waiting else "nothing"
        if kind == "depthwise" and before == "pointwise":
            groups[-1].extend(segment)
            groups[-1].kind = "depthwise"
        elif kind == "pointwise" and before == "depthwise":
            groups[-1].extend(segment)
            groups[-1].kind = "complete"
        elif kind in ("depthwise", "pointwise", "other weights", "unit"):
            groups.append(Group([*waiting, segment], [segment], kind))
            waiting = []
        elif before == "nothing" or kind == "reshaping" or (kind == "norm" and before == "unit"):
            waiting.append(segment)
        else:
            groups[-1].segments.append(segment)
    if not groups:
        return []
    groups[-1].segments += waiting
    fit = {id(segment): shape[0] == batch and (len(shape) == 2 or _is_map_or_tokens(shape[1:]))
           for segment, shape in zip(segments, shapes, strict=True)}  # fmt: skip
    for segment, shape, after in zip(segments, shapes, shapes[1:], strict=False):
        if len(shape) == 3 and tuple(after) == (shape[0], shape[2], shape[1]) != tuple(shape):  # soon (T, C)
            fit[id(segment)] = False
    whole = groups[:1]
    for group in groups[1:]:
        if not fit[id(whole[-1].segments[-1])]:
            lead = group.segments[: group.segments.index(group.core[0])]
            end = next((i + 1 for i, segment in enumerate(lead) if fit[id(segment)]), None)
            if end is None:
                whole[-1].segments += group.segments
                whole[-1].core += group.core
                continue
            whole[-1].segments += lead[:end]
            group.segments = group.segments[end:]
        whole.append(group)
    return whole


def _kind(segment: _Segment, model: nn.Module) -> str:
    weighted = [node for node in segment.nodes if _has_weights(node, model)]
    last, label = segment.output, _label(segment.output, model)
    if not weighted:
        reshaped = last.meta["tensor_meta"].shape != segment.source.meta["tensor_meta"].shape
        return "reshaping" if reshaped or "pool" in label else "norm" if "norm" in label else "elementwise"
    if weighted != [last]:
        return "gate" if label in ("mul", "mul_", "imul") and segment.source in last.all_input_nodes else "unit"
    module = model.get_submodule(last.target) if last.op == "call_module" else None
    if isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1:
        return "depthwise"
    return "pointwise" if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) else "other weights"


def _has_weights(node: fx.Node, model: nn.Module) -> bool:
    """Whether it mixes channels or pixels by learned weights; norms, PReLU and layer scale do not."""
    label = _label(node, model)
    if node.op == "call_module":
        return "norm" not in label and any(p.dim() > 1 for p in model.get_submodule(node.target).parameters())
    return label in ("conv2d", "linear", "matmul")


def _label(node: fx.Node, model: nn.Module) -> str:
    """What the node does, in lower case: class of a module, name of a function or method."""
    if node.op == "call_module":
        return type(model.get_submodule(node.target)).__name__.lower()
    return getattr(node.target, "__name__", str(node.target)).lower()


# ---- building --------------------------------------------------------------------------------------------------------


def _extract(group: Group, model: nn.Module) -> fx.GraphModule:
    """The group's operations as a module of one input."""
    graph = fx.Graph()
    copies = {group.segments[0].source: graph.placeholder("h")}

    def copy_of(node: fx.Node) -> fx.Node:
        if node not in copies:  # a parameter first fetched in an earlier block
            copies[node] = graph.node_copy(node)
        return copies[node]

    for segment in group.segments:
        for node in segment.nodes:
            copies[node] = graph.node_copy(node, copy_of)
    graph.output(copies[group.segments[-1].output])
    return fx.GraphModule(model, graph, class_name="BlockBody")


def _name(group: Group, graph: fx.Graph, model: nn.Module) -> str:
    """Path of the outermost module that lies wholly in the block and holds its weights; else of its last weights.

    A plain nn.Sequential is a row of units, so it names a block only where nothing else does.
    """
    inside = {node for segment in group.segments for node in segment.nodes}
    outside = [_path(node) for node in graph.nodes if node not in inside]
    core = [node for segment in group.core for node in segment.nodes if node.op != "get_attr"]
    common = _path(core[0])
    while not all(_within(_path(node), common) for node in core):
        common = common.rpartition(".")[0]
    levels = common.split(".")
    for path in (".".join(levels[:n]) for n in range(1, len(levels) + 1)):
        row = type(model.get_submodule(path)) is nn.Sequential and path != common
        if not row and not any(_within(other, path) for other in outside):
            return path
    last = [node for node in core if _has_weights(node, model)][-1]
    return _path(last) or last.name


def _within(path: str, ancestor: str) -> bool:
    return not ancestor or path == ancestor or path.startswith(ancestor + ".")


def _path(node: fx.Node) -> str:
    """Path of the module whose forward() made the node."""
    stack = node.meta.get("nn_module_stack")
    return next(reversed(stack.values()))[0] if stack else ""
