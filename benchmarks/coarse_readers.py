"""How well a coarse image is read from logits, with and without a linear part; of faces, by how many taught it.

    python benchmarks/coarse_readers.py faces FOLDER [--faces 9375 37500 150000 300000]
    python benchmarks/coarse_readers.py lite0 FOLDER                # photos of Tiny ImageNet; also tiny-standard, …

The coarse reader of `ffi-lite0-faces`, or of the inverter of photos by that classifier, alone: trained for the same
steps with and without, and judged on 1000 images that neither training nor a test sees. FOLDER keeps the logits, which
take most of the time: that of a run of `python -m recipes train ffi-lite0-faces` (FOLDER/training), say, has them.
"""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

import invkit
from invkit import data, metrics, statistics
from invkit.ffi import training
from invkit.ffi.biggan import LogitGenerator
from invkit.ffi.pairs import Pairs, pairs
from recipes import ffi

HELD_OUT = 10**6  # the seed of the faces to be read: the reader learns from others


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", help="faces, or the classifier of photos")
    parser.add_argument("folder")
    parser.add_argument("--faces", type=int, nargs="+", default=[9375, 37_500, 150_000, 300_000])
    args = parser.parse_args()
    for n, linear, read, truth in (faces if args.what == "faces" else photos)(args):
        found = statistics.proportion(metrics.retrieval_ranks(read, truth) == 1)
        mean = truth.mean(0, keepdim=True).expand_as(truth)
        error, floor = (statistics.bootstrap(metrics.psnr(images, truth)) for images in (read, mean))
        reader = "linear and network" if linear else "network alone"
        print(f"{n:7d} images, {reader}: {error:.2f} dB (mean image {floor.value:.2f}), {found:.1%} found", flush=True)


def faces(args: argparse.Namespace) -> Iterator[tuple[int, bool, Tensor, Tensor]]:
    """(images, with a linear part?, readings, faces), read from the logits of lite0."""
    classifier = invkit.load_classifier("lite0")
    made = pairs(classifier, ffi.teaching_images("faces", max(args.faces)), folder=args.folder)
    truth = data.load("faces", split="inverter", n=1000, seed=HELD_OUT).images
    settings = {"generator": ffi.FACES_GENERATOR, "shrink": ffi.FACES_SHRINK}
    z = pairs(classifier, truth).logits[0]
    for n in args.faces:
        some = Pairs(made.images[:, :n], made.logits[:, :n])
        for linear in (True, False):
            yield n, linear, read(some, z, settings, linear, 3000, ffi.IDENTIFY_FACES), truth


def photos(args: argparse.Namespace) -> Iterator[tuple[int, bool, Tensor, Tensor]]:
    """The same of photos of Tiny ImageNet, at 32 pixels, from the logits of the classifier named."""
    classifier, size = invkit.load_classifier(args.what), 32
    made = pairs(
        classifier, data.load_bytes("tiny-imagenet", split="inverter")[0], views=ffi.PHOTOS_VIEWS, size=size,
        folder=args.folder,
    )  # fmt: skip
    shown = data.load("tiny-imagenet", split="validation", n=1000).images
    truth = F.interpolate(shown, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
    z = pairs(classifier, shown).logits[0]
    settings = ffi.MANY_LOGITS if args.what == "lite0" else ffi.FEW_LOGITS
    for linear in (True, False):
        seen = read(made, z, settings, linear, 2200, ffi.IDENTIFY_PHOTOS)
        yield made.images.shape[1], linear, seen, truth


def read(made: Pairs, z: Tensor, settings: dict, linear: bool, steps: int, identify: float) -> Tensor:
    """What a reader that learnt from `made` reads from the logits z, enlarged to the images' size."""
    size = made.images.shape[-1]
    torch.manual_seed(0)
    g = LogitGenerator(size, z.shape[1], **settings["generator"] | {"coarse_linear": linear})
    g.whitening.fit(made.logits.flatten(0, 1), settings["shrink"])
    images, logits = made.images.flatten(0, 1), made.logits.flatten(0, 1)
    training.fit_coarse_images(g, images, logits, steps, identify=identify, precision="bf16")
    with torch.inference_mode():
        coarse = g.coarse(g.whitening(z), z.softmax(1))
    return F.interpolate(coarse, size=size, mode="bilinear").clamp(0, 1)


if __name__ == "__main__":
    main()
