"""What a profile and the recipes it reads would need, found out without data, weights or a GPU.

    python -m invkit dry-run imagenet

1. Every notebook takes the profile's parameters (`book.parameters`).
2. Every network that the profile names is built with random weights, classifies an image and is cut into blocks.
3. Every recipe behind a folder that the profile names takes one real step: all its networks at full width, on two fake
   images (crops of 64 pixels where it inverts block by block), with the losses and the loop of the real training. Of
   recipes with the same BigGAN the first does; the others step with a thin one.
4. Memory per GPU is estimated at the recipe's own batch and image size. Weights are counted, and for what trains, its
   gradients, the all-reduce's copy of them, Adam's two moments and the moving average, all float32. Activations: the
   loss of each player is evaluated on tensors without content (`FakeTensorMode`) under bfloat16 autocast, and the
   bytes of all that autograd saves for the backward pass are added up, each storage once (`saved_tensors_hooks`); the
   hungriest player counts. The workspaces of convolutions and the allocator's gaps do not: allow a quarter more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from invkit import dci
from invkit.dci.chain import Chain
from invkit.network.classifiers import LIBRARIES, Classifier, load_classifier
from invkit.training import READ_AHEAD, train
from recipes import imagenet
from recipes.imagenet import ARCHITECTURE, PLANS, BlockPlan, LogitPlan
from study import book

COPIES = 6  # of each trained number: weight, gradient, the all-reduce's copy, two moments, moving average
IMAGES, CROP = 2, 64  # of the step that is really taken
THIN = 8  # BigGAN's width in the steps of further recipes with the same networks


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU."""

    trained: int  # COPIES of the numbers that train
    frozen: int  # weights of the network that is inverted
    activations: int  # saved for the backward pass
    passing: int  # batches in flight, and what the frozen network's own pass holds at its widest

    @property
    def total(self) -> int:
        return self.trained + self.frozen + self.activations + self.passing


# ---- memory ----------------------------------------------------------------------------------------------------------


def saved_bytes(evaluate: Callable[[], Any], without: Sequence[Tensor] = ()) -> int:
    """Bytes that autograd holds after evaluate(), each storage once, `without` those of these tensors."""
    known = {tensor.untyped_storage()._cdata for tensor in without}
    held: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        held[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = evaluate()
    total = sum(tensor.untyped_storage().nbytes() for key, tensor in held.items() if key not in known)
    del kept
    return total


def memory(plan: LogitPlan | BlockPlan, classifier: Classifier) -> Memory:
    """What one of the plan's GPUs needs; the classifier's weights may be random."""
    return (_logit_memory if isinstance(plan, LogitPlan) else _block_memory)(plan, classifier)


def _logit_memory(plan: LogitPlan, classifier: Classifier) -> Memory:
    batch = plan.batch // plan.gpus
    networks = _on_nothing(plan, classifier)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for network in networks:
            network.to_empty(device="cpu")
        players = imagenet.logit_players(plan, *networks, grace=1)  # a drawing without content is not checked
        images = torch.empty(batch, 3, plan.size, plan.size)
        pair = images, torch.empty(batch, classifier.classes)
        tensors = [tensor for network in networks for tensor in _tensors(network)]
        activations = []
        for player in players:
            for network in networks:
                network.train().requires_grad_(network is player.module)
            with torch.autocast("cpu", torch.bfloat16):
                activations.append(saved_bytes(lambda player=player: player.loss(player.module, pair, 0), tensors))
        passing = _passing(classifier, batch) + _bytes([images]) * (READ_AHEAD + 1)
        trained = COPIES * _bytes(p for network in networks for p in network.parameters())
    return Memory(trained, _bytes(_tensors(classifier.model)), max(activations), passing)


def _block_memory(plan: BlockPlan, classifier: Classifier) -> Memory:
    batch, blocks = plan.batch // plan.gpus, dci.classifier_blocks(classifier)
    sizes = imagenet.block_sizes(plan, classifier)
    depth, shapes = len(sizes), [(3, classifier.size, classifier.size), *(block.shape for block in classifier.blocks)]
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        chain = Chain(shapes[: depth + 1], sizes)
        images = torch.empty(batch, 3, classifier.size, classifier.size)
        fixed = [*_tensors(chain), *(mode.from_tensor(tensor) for tensor in _tensors(classifier.model))]

        def loss() -> tuple:
            with torch.no_grad():
                hidden = dci.represent(blocks, images, depth)
            units = [dci.spread(h) for h in hidden[-2:0:-1]]
            return dci.loss_terms(chain(hidden[depth], depth), hidden, blocks, units, plan.weights)

        with torch.autocast("cpu", torch.bfloat16):
            activations = saved_bytes(loss, fixed)
        hidden = [torch.empty(batch, *shape, dtype=torch.bfloat16) for shape in shapes[1:]]
        passing = _bytes(hidden) + _bytes([images]) * (READ_AHEAD + 1)
        trained = COPIES * _bytes(chain.parameters())
    return Memory(trained, _bytes(_tensors(classifier.model)), activations, passing)


def _passing(classifier: Classifier, batch: int) -> int:
    """The most that a module of the classifier reads and writes in one pass without gradients."""
    widest = [0]

    def look(module: nn.Module, inputs: tuple, output: Any) -> None:
        widest[0] = max(widest[0], _bytes(t for t in (*inputs, output) if isinstance(t, Tensor)))

    hooks = [module.register_forward_hook(look) for module in classifier.model.modules()]
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            classifier.model(torch.empty(batch, 3, classifier.size, classifier.size))
    finally:
        for hook in hooks:
            hook.remove()
    return widest[0]


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


# ---- one step --------------------------------------------------------------------------------------------------------


def step(plan: LogitPlan | BlockPlan, classifier: Classifier) -> dict[str, float]:
    """One step of the plan's training on fake images, on this machine; returns its losses."""
    if isinstance(plan, LogitPlan):
        g = torch.Generator().manual_seed(0)
        images = torch.randint(256, (IMAGES, 3, plan.size, plan.size), generator=g, dtype=torch.uint8)
        if plan.width > THIN:
            networks = _on_nothing(plan, classifier)
            for network in networks:
                _fill(network)
        else:
            networks = imagenet.logit_networks(plan, classifier.classes)
        players = imagenet.logit_players(plan, *networks, grace=1)
        batches = imagenet.logit_batches(plan, images, classifier, IMAGES, seed=0)
        done = train(players, batches, steps=1, ema=plan.ema, warmup=0, schedule="constant", progress=False)
    else:
        done = _block_step(plan, classifier)
    losses = {name: value for name, value in done.history[-1][1].items() if name.endswith("loss")}
    if not losses or not all(map(math.isfinite, losses.values())):
        raise ValueError(f"One step with {plan.classifier} gives no finite loss: {losses}.")
    return losses


def _block_step(plan: BlockPlan, classifier: Classifier):
    blocks, sizes = dci.classifier_blocks(classifier), imagenet.block_sizes(plan, classifier)
    shapes = [(3, classifier.size, classifier.size), *(block.shape for block in classifier.blocks)]
    chain = Chain(shapes[: len(sizes) + 1], sizes)

    def batches(step: int, depth: int) -> Tensor:
        return torch.rand(IMAGES, 3, CROP, CROP, generator=torch.Generator().manual_seed(step))

    with torch.no_grad():
        hidden = dci.represent(blocks, batches(0, 0), len(sizes))
    for depth, inverse in enumerate(chain.inverses, start=1):
        inverse.calibrate(hidden[depth], hidden[depth - 1])
    deepest = (0.0,) * (len(sizes) - 1) + (1.0,)
    schedule = replace(plan.schedule, synchronise=1, often=deepest)
    return dci.synchronise(chain, blocks, batches, schedule=schedule, weights=plan.weights, progress=False)


def _on_nothing(plan: LogitPlan, classifier: Classifier) -> tuple[nn.Module, nn.Module]:
    """The plan's two networks on the meta device: drawing their orthogonal weights would take minutes."""
    with torch.device("meta"):
        return imagenet.logit_networks(plan, classifier.classes)


def _fill(network: nn.Module) -> None:
    """Small random numbers in all tensors of a network that was built on the meta device."""
    network.to_empty(device="cpu")
    g = torch.Generator().manual_seed(0)
    for tensor in _tensors(network):
        if tensor.is_floating_point():
            tensor.data.normal_(0, 0.02, generator=g)
        else:
            tensor.zero_()


# ---- a profile -------------------------------------------------------------------------------------------------------


def named(profile: str) -> tuple[list[str], list[str]]:
    """The networks that a profile names, and the recipes of the folders that it names, each once, in order."""
    words = []
    for chapter in book.notebooks():
        words += _words(book.parameters(chapter, profile))
    known = {*PLANS}
    recipes_ = [word.rpartition("/")[2] for word in words if "/" in word and word.rpartition("/")[2] in known]
    networks = [word for word in words if word.partition(":")[0] in LIBRARIES or word in ARCHITECTURE]
    return list(dict.fromkeys(networks)), list(dict.fromkeys(recipes_))


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _words(part)


def build(name: str) -> Classifier:
    """The network of this name with random weights, cut into blocks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = load_classifier(ARCHITECTURE.get(name, name), pretrained=False)
    classifier.blocks  # noqa: B018 (cuts it)
    return classifier


def main(profile: str = "imagenet") -> None:
    """Print a line for everything that the profile names; raises, in a sentence, where something does not work."""
    networks, names = named(profile)
    chapters = [chapter for chapter in book.notebooks() if book.parameters(chapter, profile)]
    print(f"profiles/{profile}.yaml: {len(chapters)} chapters take its parameters.")
    built: dict[str, Classifier] = {}
    for name in dict.fromkeys([*networks, *(PLANS[recipe].classifier for recipe in names)]):
        classifier = built[name] = build(name)
        numbers = _bytes(classifier.model.parameters()) / 4e6
        facts = f"{numbers:.1f} million numbers, {classifier.size} pixels, {len(classifier.blocks)} blocks"
        print(f"{name}: {facts}.", flush=True)
    stepped = set()
    for recipe in names:
        plan = PLANS[recipe]
        classifier = built[plan.classifier]
        print(f"{recipe}: {_sentence(plan, memory(plan, classifier))}.", flush=True)
        shape = (plan.size, plan.width) if isinstance(plan, LogitPlan) else recipe
        plan = replace(plan, width=THIN) if shape in stepped else plan
        stepped.add(shape)
        began = time.monotonic()
        losses = ", ".join(f"{name} {value:.3g}" for name, value in step(plan, classifier).items())
        thin = f" (width {THIN}: these networks have had one)" if getattr(plan, "width", None) == THIN else ""
        print(f"    one step on {IMAGES} fake images{thin}: {losses}, {time.monotonic() - began:.0f} s.", flush=True)


def _sentence(plan: LogitPlan | BlockPlan, needed: Memory) -> str:
    parts = ", ".join(f"{name} {value / 2**30:.1f}" for name, value in vars(needed).items())
    share = f"{plan.gpus} GPUs with {plan.batch // plan.gpus} images each"
    return f"{needed.total / 2**30:.1f} GiB a GPU ({parts}) on {share}"
