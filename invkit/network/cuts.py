"""Cut a network at its modules, where torch.fx cannot trace it: Hugging Face's networks, checks of shapes, an `if`.

One call of the network is recorded, with gradients. The network can be cut after a module where every path of gradients
from the logits to the image leads through what the module returned. A block from one cut to the next is the network's
own forward(): modules that are over at the first cut return zeros instead of computing, the first cut returns what the
block is given, and the call ends at the second. So it is right however the code between the modules is written, but for
what gradients do not show: values that depend on the image and come round a cut without a gradient. Such a cut is found
out on images of other values and numbers, where the block would return something else than the network.
"""

from __future__ import annotations

import dataclasses
import difflib
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from invkit.network.partition import BY_HAND, Block, close, compose, evaluating, join

_RUNNING = threading.RLock()  # a block replaces the forward() of modules for the time of its call


def cut_at_modules(
    model: nn.Module,
    network: nn.Module,
    examples: Callable[[int, int], Tensor],
    cuts: Sequence[str] | None = None,
) -> list[Block]:
    """Blocks that begin and end at modules, and whose composition is `model`.

    Args:
        model: in eval mode; images -> logits.
        network: `model`, or the part of it whose modules' names are meant.
        examples: (number, seed) -> so many images as the model takes them.
        cuts: names of modules, each of which ends a block; what follows the last is a block of its own. None for the
            shallowest blocks by the rules of `join`.

    Raises:
        ValueError: names where the network cannot be cut, or a network that can be cut nowhere.
    """
    record = _Record(model, network, examples)
    places = record.named(cuts) if cuts is not None else record.found()
    record.forget()
    places = _checked(record, model, network, places, examples, cuts is not None)
    names = [record.name(before, after) for before, after in zip([None, *places], [*places, None], strict=True)]
    if cuts is not None:
        names[: len(places)] = [place.path for place in places]
    bodies = [_Span(model, network, record, *ends) for ends in zip([None, *places], [*places, None], strict=True)]
    return compose(list(zip(names, bodies, strict=True)), model, examples(1, 0))


def _checked(
    record: _Record,
    model: nn.Module,
    network: nn.Module,
    places: list[_Call],
    examples: Callable[[int, int], Tensor],
    by_name: bool,
) -> list[_Call]:
    """The cuts without those between which a block returns something else than the network does.

    Raises:
        ValueError: there are such cuts, and they were named.
    """
    for number, seed in ((2, 1), (3, 2)):
        images = examples(number, seed)
        truth = _outputs(model, network, places, images)
        kept: list[_Call] = []
        for place in [*(place for place in places if place in truth or by_name), None]:
            while kept:
                span = _Span(model, network, record, kept[-1], place)
                if _right(span, truth.get(kept[-1]), truth.get(place)):
                    break
                wrong = kept.pop()
                if by_name:
                    raise ValueError(
                        f"{wrong.path} is no place to cut: what follows depends on more than its output; leave it out."
                    )
            if place is not None:
                kept.append(place)
        places = kept
    return places


def _right(span: _Span, h: Tensor | None, expected: Tensor | None) -> bool:
    if h is None or expected is None:
        return False
    try:
        with torch.no_grad():
            return close(span(h), expected)
    except Exception:  # whatever a forward() may do with zeros in place of what it needs
        return False


@torch.no_grad()
def _outputs(model: nn.Module, network: nn.Module, places: list[_Call], images: Tensor) -> dict[_Call | None, Tensor]:
    """What each of these modules returns for images, if it is called, and under None what the model does."""
    found: dict[_Call | None, Tensor] = {}

    def keep(place: _Call):
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found[place] = _tensors(output)[place.main].clone()

        return hook

    handles = [network.get_submodule(place.path).register_forward_hook(keep(place)) for place in places]
    try:
        found[None] = model(images)
    finally:
        for handle in handles:
            handle.remove()
    return found


# ---- one call of the network -----------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Call:
    """One call of a module.

    Attributes:
        path: of the module.
        parent: number of the call that it was made in; -1 for the network's own.
        begin, end: when, on a clock of all calls.
        output: what it returned, with a `_Kept` in place of each tensor.
        main: which of the tensors that it returned is the cut; -1 where none is.
        used: whether the logits depend on what it returned; they do not on an unused head.
    """

    path: str
    parent: int
    begin: int
    end: int = -1
    output: Any = None
    main: int = -1
    used: bool = True
    vertices: list[tuple[Any, int]] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)

    def within(self, before: _Call | None, after: _Call | None) -> bool:
        return (before is None or self.begin > before.end) and (after is None or self.end <= after.end)


@dataclass(frozen=True)
class _Kept:
    """What is kept of a tensor: its shape for one image and for two, and its type."""

    shape: tuple[int, ...]
    shape_of_two: tuple[int, ...]
    dtype: torch.dtype

    @property
    def is_batch(self) -> bool:
        """Whether it begins with the number of images."""
        return (self.shape[:1], self.shape_of_two[:1]) == ((1,), (2,))

    def zeros(self, n: int, device: torch.device) -> Tensor:
        shape = [a * n if b == 2 * a else a for a, b in zip(self.shape, self.shape_of_two, strict=True)]
        return torch.zeros(shape, dtype=self.dtype, device=device)


class _Record:
    """The calls of a network's modules on one image, and where it can be cut."""

    def __init__(self, model: nn.Module, network: nn.Module, examples: Callable[[int, int], Tensor]):
        self.network = network
        self.images = _Kept(tuple(examples(1, 0).shape), tuple(examples(2, 0).shape), torch.float32)
        with torch.enable_grad():
            # the network may write here
            images, double = (examples(n, 0).detach().requires_grad_() * 1 for n in (1, 2))
            self.calls, output = _recorded(model, network, images)
            two, _ = _recorded(model, network, double)
        if [call.path for call in two] != [call.path for call in self.calls]:
            raise ValueError(f"{type(network).__name__} calls other modules for two images than for one: {BY_HAND}.")
        if output.grad_fn is None or images.grad_fn is None:
            raise ValueError(
                f"No gradient leads through {type(network).__name__}: take torch.no_grad() and detach() out of its "
                "forward(), since an inversion is trained through it."
            )
        last = (output.grad_fn, output.output_nr)
        reached, on_all_paths = set(_sorted(last)), _cut_vertices(last, (images.grad_fn, images.output_nr))
        times = Counter(call.path for call in self.calls)
        for call, double in zip(self.calls, two, strict=True):
            kept, kept_of_two = (_tensors(one.output, _Kept) for one in (call, double))
            pairs = iter([dataclasses.replace(a, shape_of_two=b.shape) for a, b in zip(kept, kept_of_two, strict=True)])
            call.output = _mapped(call.output, lambda _, pairs=pairs: next(pairs), _Kept)
            seen = [*call.vertices, *_vertices(call.tensors)]  # a change in place gives a view another vertex
            call.used = any(vertex in reached or vertex[0] is None for vertex in seen)  # None: without a gradient
            if times[call.path] == 1:
                members = enumerate(zip(call.vertices, _tensors(call.output, _Kept), strict=True))
                batches = (i for i, (vertex, one) in members if vertex in on_all_paths and one.is_batch)
                call.main = next(batches, -1)

    def forget(self) -> None:
        """Free the graph of gradients with all that it holds, once it is known where to cut."""
        for call in self.calls:
            call.vertices, call.tensors = [], []

    def candidates(self) -> list[_Call]:
        """The calls after which the network can be cut, in order.

        Of those that return one tensor it is the first and the modules around it, of which the outermost is taken.
        """
        found: dict[tuple[Any, int], _Call] = {}
        for call in sorted(self.calls, key=lambda call: call.end):
            if call.main >= 0:
                vertex = call.vertices[call.main]
                if vertex not in found or call.begin < found[vertex].begin:
                    found[vertex] = call
        return sorted(found.values(), key=lambda call: call.end)

    def found(self) -> list[_Call]:
        """The ends of the shallowest blocks but the last, by the rules of `join`."""
        places = self.candidates()
        ends = list(zip([None, *places], [*places, None], strict=True))
        shapes = [_tensors(place.output, _Kept)[place.main].shape for place in places] + [(1, 1)]
        groups = join(ends, [self._kind(*segment) for segment in ends], shapes, 1)
        if not groups:
            raise ValueError(f"{type(self.network).__name__} has no convolution or linear map to cut at: {BY_HAND}.")
        return [group.segments[-1][1] for group in groups[:-1]]

    def named(self, names: Sequence[str]) -> list[_Call]:
        """The calls of the modules of these names, in the order of the calls; ValueError where that cannot be."""
        if isinstance(names, str) or not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names):
            raise ValueError(f"cuts must be a list of module names, such as ['{names}'], not {names!r}.")
        known = dict(self.network.named_modules())
        for name in names:
            if name not in known:
                similar = difflib.get_close_matches(name, known, 3) or [call.path for call in self.candidates()][:6]
                raise ValueError(f"There is no module {name!r} to cut at: there are {', '.join(similar)}.")
        places = []
        for name in dict.fromkeys(names):
            calls = [call for call in self.calls if call.path == name]
            if len(calls) == 1 and calls[0].main >= 0:
                places.append(calls[0])
                continue
            why = "a part of the image reaches the logits round it, or its output does not begin with the batch"
            why = why if len(calls) == 1 else f"it is called {len(calls)} times" if calls else "it is never called"
            there = ", ".join(call.path for call in self.candidates())
            raise ValueError(f"{name} is no place to cut ({why}): choose of {there or 'none'}.")
        return sorted(places, key=lambda call: call.end)

    def name(self, before: _Call | None, after: _Call | None) -> str:
        """The path of the outermost module that holds the weights between two cuts; else of the last with weights."""
        inside = [call for call in self.calls if call.within(before, after)]
        weighted = [call for call in inside if self._has_weights(call)]
        if not weighted:
            return inside[-1].path if inside else "rest"
        whole = [c for c in inside if c.begin <= weighted[0].begin and c.end >= weighted[-1].end]
        whole = [c for c in whole if c is weighted[-1] or type(self.network.get_submodule(c.path)) is not nn.Sequential]
        return min(whole or weighted[-1:], key=lambda call: call.begin).path

    def _kind(self, before: _Call | None, after: _Call | None) -> str:
        """What lies between two neighbouring cuts, in the words of `join`."""
        inside = [call for call in self.calls if call.within(before, after)]
        weighted = [call for call in inside if self._has_weights(call)]
        if len(weighted) > 1:
            return "unit"
        if weighted:
            module = self.network.get_submodule(weighted[0].path)
            if isinstance(module, nn.Conv2d):
                if module.groups == module.in_channels > 1:
                    return "depthwise"
                return "pointwise" if module.kernel_size == (1, 1) else "other weights"
            return "other weights"
        shapes = [_tensors(end.output, _Kept)[end.main].shape for end in (before, after) if end is not None]
        if len(shapes) < 2 or shapes[0] != shapes[1]:
            return "reshaping"
        names = [type(self.network.get_submodule(call.path)).__name__.lower() for call in inside]
        return "reshaping" if "pool" in "".join(names) else "norm" if "norm" in "".join(names[-1:]) else "elementwise"

    def _has_weights(self, call: _Call) -> bool:
        """Whether the call is of a module that itself mixes channels or pixels by learned weights, for the logits."""
        module = self.network.get_submodule(call.path)
        matrix = any(p.dim() > 1 for p in module.parameters(recurse=False))
        leaf = not any(other.parent >= 0 and self.calls[other.parent] is call for other in self.calls)
        return call.used and matrix and leaf and "norm" not in type(module).__name__.lower()


def _recorded(model: nn.Module, network: nn.Module, images: Tensor) -> tuple[list[_Call], Tensor]:
    """The calls of the network's modules, in the order in which they begin, and the model's output."""
    calls: list[_Call] = []
    stack: list[int] = []
    time = iter(range(10**9))

    def begin(path: str):
        def hook(module: nn.Module, inputs: Any) -> None:
            calls.append(_Call(path, stack[-1] if stack else -1, next(time)))
            stack.append(len(calls) - 1)

        return hook

    def end(module: nn.Module, inputs: Any, output: Any) -> None:
        call = calls[stack.pop()]
        call.end, call.tensors = next(time), _tensors(output)
        call.output = _mapped(output, lambda t: _Kept(tuple(t.shape), tuple(t.shape), t.dtype))
        call.vertices = _vertices(call.tensors)

    handles = []
    for path, module in network.named_modules():
        if path and not isinstance(module, torch.jit.ScriptModule):
            handles += [module.register_forward_pre_hook(begin(path)), module.register_forward_hook(end)]
    try:
        with evaluating(model):
            return calls, model(images)
    finally:
        for handle in handles:
            handle.remove()


def _vertices(tensors: list[Tensor]) -> list[tuple[Any, int]]:
    """Where tensors stand in the graph of gradients: each one's (node, which of its outputs)."""
    return [(tensor.grad_fn, tensor.output_nr) for tensor in tensors]


def _cut_vertices(output: tuple[Any, int], source: tuple[Any, int]) -> set[tuple[Any, int]]:
    """The vertices of a graph of gradients, (node, which of its outputs), that every path between two of them visits.

    The two themselves are left out. A path from the output to a vertex and one from there to the source make one from
    the output to the source; where the products of their numbers are equal, there are no others.
    """
    order = list(_sorted(output))
    from_output = dict.fromkeys(order, 0) | {output: 1}
    for vertex in order:
        for following in _next(vertex):
            from_output[following] += from_output[vertex]
    to_source: dict[tuple[Any, int], int] = {}
    for vertex in reversed(order):
        to_source[vertex] = 1 if vertex == source else sum(to_source[following] for following in _next(vertex))
    total = to_source[output]
    return {v for v in order if total and from_output[v] * to_source[v] == total} - {output, source}


def _next(vertex: tuple[Any, int]) -> list[tuple[Any, int]]:
    return [(node, number) for node, number in vertex[0].next_functions if node is not None]


def _sorted(first: tuple[Any, int]) -> Iterator[tuple[Any, int]]:
    """All vertices that can be reached, each after those that lead to it."""
    done, under_way, found = set(), [(first, iter(_next(first)))], []
    done.add(first)
    while under_way:
        vertex, following = under_way[-1]
        for one in following:
            if one not in done:
                done.add(one)
                under_way.append((one, iter(_next(one))))
                break
        else:
            found.append(vertex)
            under_way.pop()
    return reversed(found)


# ---- blocks ----------------------------------------------------------------------------------------------------------


class _Arrived(BaseException):
    """The call of a network has come to the end of a block; no Exception, which a forward() might catch."""


class _Span(nn.Module):
    """The network from one cut to the next, as a module of one input, for any batch size."""

    def __init__(
        self, model: nn.Module, network: nn.Module, record: _Record, before: _Call | None, after: _Call | None
    ):
        super().__init__()
        self.whole = (model, network)  # in a tuple, so that its weights do not count as those of this block
        self.images, self.before, self.after = record.images, before, after
        calls = record.calls
        inside = {i for i, call in enumerate(calls) if call.within(before, after)}
        outermost = [calls[i].path for i in sorted(inside) if calls[i].parent not in inside and calls[i].used]
        self.inside = nn.ModuleList(network.get_submodule(path) for path in dict.fromkeys(outermost))
        self.over: dict[str, list[_Call]] = defaultdict(list)  # what is over at the first cut, by module
        if before is not None:
            around = {-1, *(i for i, call in enumerate(calls) if call.begin < before.begin and call.end > before.end)}
            for i, call in enumerate(calls):
                if call.end <= before.end and call.parent in around and i not in around:
                    self.over[call.path].append(call)

    def forward(self, h: Tensor) -> Tensor:
        model, network = self.whole
        images = h.clone() if self.before is None else self.images.zeros(len(h), h.device)
        end: list[Tensor] = []

        def arrive(module: nn.Module, inputs: Any, output: Any) -> None:
            assert self.after is not None
            end.append(_tensors(output)[self.after.main])
            raise _Arrived

        with _RUNNING, evaluating(model), self._over_before(h):
            handle = network.get_submodule(self.after.path).register_forward_hook(arrive) if self.after else None
            try:
                logits = model(images)
            except _Arrived:
                return end[0]
            finally:
                if handle:
                    handle.remove()
        if self.after is not None:
            raise RuntimeError(f"{self.after.path}, where a block ends, was not called.")
        return logits

    @contextmanager
    def _over_before(self, h: Tensor) -> Iterator[None]:
        """Modules that are over at the first cut return zeros, and the first cut returns h, until it has done so."""
        network, arrived = self.whole[1], self.before is None

        def replaced(original: Callable, calls: Iterator[_Call]) -> Callable:
            def forward(*inputs: Any, **named: Any) -> Any:
                nonlocal arrived
                call = None if arrived else next(calls, None)
                if call is None:
                    return original(*inputs, **named)
                arrived = call is self.before
                count = iter(range(10**6))
                return _mapped(
                    call.output,
                    lambda kept: h.clone() if next(count) == call.main and arrived else kept.zeros(len(h), h.device),
                    _Kept,
                )

            return forward

        own = {path: network.get_submodule(path) for path in self.over}
        before = {path: vars(module).get("forward") for path, module in own.items()}
        for path, module in own.items():
            vars(module)["forward"] = replaced(module.forward, iter(self.over[path]))
        try:
            yield
            if not arrived:
                raise RuntimeError(f"{self.before and self.before.path}, where a block begins, was not called.")
        finally:
            for path, module in own.items():
                del vars(module)["forward"]
                if before[path] is not None:
                    vars(module)["forward"] = before[path]


# ---- what modules return ---------------------------------------------------------------------------------------------


def _mapped(value: Any, function: Callable, kind: type = Tensor) -> Any:
    """A nested tuple, list, mapping or dataclass with the function's result in place of each `kind`, in order."""
    if isinstance(value, kind):
        return function(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = {f.name: _mapped(getattr(value, f.name), function, kind) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **members)
    if isinstance(value, Mapping):
        return cast(Any, type(value))((key, _mapped(member, function, kind)) for key, member in value.items())
    if isinstance(value, tuple | list):
        row = [_mapped(member, function, kind) for member in value]
        return type(value)(*row) if hasattr(value, "_fields") else type(value)(row)
    return value


def _tensors(value: Any, kind: type = Tensor) -> list[Any]:
    """The tensors, or what else is of a kind, in a nested value, in order."""
    found: list[Any] = []
    _mapped(value, found.append, kind)
    return found
