"""What costs how much, as ratios measured in one run on this machine.

    python benchmarks/speed.py [--seconds 5]

Prints images per second with the ratio to the line's own baseline: drawing synthetic images and glyphs, the
classifier's forward pass and the inverse chain in float32 and under bfloat16 autocast, in the usual memory layout and
in channels_last, and the share of a training step that goes into making its batch.
"""

import argparse
import time
from collections.abc import Callable

import torch

import invkit
from invkit import dci
from invkit.data import glyphs
from invkit.dci import synthetic
from recipes.dci import LITE0_SIZES


def rate(run: Callable[[], object], images: int, seconds: float) -> float:
    """Images per second, after one warm-up call."""
    run()
    calls, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        run()
        calls += 1
    return calls * images / (time.perf_counter() - start)


def show(label: str, value: float, baseline: float | None = None) -> None:
    ratio = f"  x{value / baseline:.2f}" if baseline else ""
    print(f"{label:58s} {value:8.1f} images/s{ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="time spent on each line")
    seconds = parser.parse_args().seconds
    print(f"{invkit.store.machine_class()}, {torch.get_num_threads()} threads, torch {torch.__version__}")

    for source in (synthetic.white_noise, synthetic.pink_noise, synthetic.dead_leaves):
        show(f"{source.__name__}, 96 px", rate(lambda source=source: source(64, 96), 64, seconds))
    for size in (32, 64):
        show(f"glyphs, {size} px", rate(lambda size=size: glyphs.draw(256, size=size), 256, seconds))
    pool = synthetic.draw_pool(48, 320)
    draw = rate(lambda: pool.batch(0, 16, 128), 16, seconds)
    show("cut from a pool, 128 px", draw)

    classifier = invkit.load_classifier("lite0")
    shapes = [(3, 224, 224), *(tuple(block.shape) for block in classifier.blocks[:9])]
    chain = dci.Chain(shapes, LITE0_SIZES[:9])
    blocks = dci.classifier_blocks(classifier)[:9]
    images = pool.batch(0, 16, 128)

    def forward(layout: torch.memory_format, precision: torch.dtype) -> tuple[float, float]:
        chain.to(memory_format=layout)
        classifier.model.to(memory_format=layout)
        x = images.contiguous(memory_format=layout)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            h = dci.represent(blocks, x, 9)[-1]
            return (
                rate(lambda: dci.represent(blocks, x, 9), 16, seconds),
                rate(lambda: chain(h, 9), 16, seconds),
            )

    baseline = forward(torch.contiguous_format, torch.float32)
    names = ("lite0, 24 convolutions, 128 px", "its inverse chain, 128 px")
    for name, value in zip(names, baseline, strict=True):
        show(f"{name}, float32, contiguous", value)
    for precision in (torch.float32, torch.bfloat16):
        for name, value, base in zip(names, forward(torch.channels_last, precision), baseline, strict=True):
            show(f"{name}, {str(precision)[6:]}, channels_last", value, base)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                hidden = dci.represent(blocks, images, 9)
            loss, _ = dci.loss_terms(chain(hidden[-1], 9), hidden, blocks, [1.0], dci.ChainLossWeights())
        loss.backward()

    train = rate(step, 16, seconds)
    show("training step, all three terms, bfloat16", train)
    print(f"{'share of a training step spent on its batch':58s} {train / draw:8.1%}")


if __name__ == "__main__":
    main()
