"""How much of a face is read from the logits of lite0, against how many faces a reader has learnt from.

    python benchmarks/faces_seen.py FOLDER [--faces 9375 37500 150000 300000] [--steps 3000]

The coarse reader of `ffi-lite0-faces` alone, with and without its linear part, trained for the same steps at every
number. FOLDER keeps the logits of the faces, which take most of the time: that of a run of
`python -m invkit train ffi-lite0-faces` (FOLDER/training) has them already.
"""

import argparse

import torch
from torch.nn import functional as F

import invkit
from invkit import data, ffi, ffi_recipes, metrics
from invkit.networks import LogitGenerator
from invkit.pairs import pairs

HELD_OUT = 10**6  # the seed of the faces to be read: the reader learns from others


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--faces", type=int, nargs="+", default=[9375, 37_500, 150_000, 300_000])
    parser.add_argument("--steps", type=int, default=3000)
    args = parser.parse_args()
    classifier = invkit.load_classifier("lite0")
    made = pairs(classifier, ffi_recipes.draw("faces", max(args.faces)), folder=args.folder)
    images, z = made.images[0], made.logits[0]
    faces = data.load("faces", split="inverter", n=1000, seed=HELD_OUT).images
    logits = pairs(classifier, faces).logits[0]
    for n in args.faces:
        for linear in (True, False):
            torch.manual_seed(0)
            g = LogitGenerator(64, classifier.classes, **ffi_recipes.FACES_GENERATOR | {"coarse_linear": linear})
            g.whitening.fit(z[:n], ffi_recipes.FACES_SHRINK)
            ffi.read_coarsely(
                g, images[:n], z[:n], args.steps, identify=ffi_recipes.IDENTIFY_FACES, precision="bf16"
            )  # fmt: skip
            with torch.inference_mode():
                read = F.interpolate(g.coarse(g.whitening(logits), logits.softmax(1)), size=64, mode="bilinear")
            read = read.clamp(0, 1)
            found = metrics.proportion(metrics.retrieval_ranks(read, faces) == 1)
            error = metrics.bootstrap(metrics.psnr(read, faces))
            print(f"{n:7d} faces, {'linear and network' if linear else 'network alone'}: {error:.2f} dB, {found:.0%}")


if __name__ == "__main__":
    main()
