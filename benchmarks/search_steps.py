"""How to search behind a reading (`invkit.dci.search`), on synthetic images that no training has seen.

    python benchmarks/search_steps.py --depths 15 --steps 800 --settled 4 1000 --images 8

Mean PSNR in dB of held-out dead leaves, and of images that show classes, read by dci-lite0 from each depth, once and
after a search; no photograph is looked at. By this command, at depth 15 (42 convolutions):

                                                        leaves    shown
    read once                                           13.42     14.43
    searched, channel means held after 4 descents       14.09     15.80
    searched, channel means never held                  14.09     15.49
"""

import argparse
import time
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.functional import center_crop

import invkit
from invkit import dci
from invkit.dci.search import SETTLED, search
from invkit.dci.synthetic import dead_leaves, draw_pool
from invkit.metrics import psnr
from recipes.matching import batch_norm_matched


def showing_classes(classifier, n: int, seed: int) -> Tensor:
    """n images of 240 pixels, (n, 3, 240, 240), each of which shows a class drawn at random, and all together natural
    statistics: dead leaves changed at 128 pixels, where a step costs a quarter, then sharpened."""
    classes = torch.randperm(classifier.classes, generator=torch.Generator().manual_seed(seed))[:n]
    images = dead_leaves(n, 128, seed).to(classifier.device)
    for size, steps, lr in ((128, 200, 0.15), (240, 20, 0.05)):
        images = F.interpolate(images, (size, size), mode="bicubic", align_corners=False).clamp(0, 1)
        images = batch_norm_matched(
            classifier, n, size, seed + size, steps, lr, smooth=2e-3, start=images, classes=classes
        )
    return images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inverter", default="dci-lite0")
    parser.add_argument("--depths", type=int, nargs="+", default=[12, 15])
    parser.add_argument("--steps", type=int, nargs="+", default=[200, 320, 800])
    parser.add_argument("--through", type=int, nargs="+", help="depths searched through; by default a third of the way")
    parser.add_argument("--cuts", type=int, nargs="+", help="depths represented from; by default one less")
    parser.add_argument("--settled", type=int, nargs="+", help="descents after which channel means are held")
    parser.add_argument("--images", type=int, default=16, help="of each kind, at most 16")
    options = parser.parse_args()
    inverter = invkit.load_inverter(options.inverter)
    blocks = dci.classifier_blocks(inverter.classifier)
    leaves = draw_pool(64, 320, seed=777, pink=0).batch(0, options.images, inverter.size)  # cut as in training
    shown = showing_classes(inverter.classifier, 16, seed=777)[: options.images]
    images = torch.cat([leaves, center_crop(shown, inverter.size)])

    def said(readings: Tensor) -> str:
        of_leaves, of_shown = psnr(readings, images).split(options.images)
        return f"leaves {of_leaves.mean():.2f}, shown {of_shown.mean():.2f} dB"

    for depth in options.depths:
        y = torch.cat([inverter.represent(part, depth) for part in images.split(8)])
        first = torch.cat([inverter.invert(part, depth, feedback=False) for part in y.split(8)])
        print(f"depth {depth}: read once, {said(first)}")
        usual = [min(depth, len(inverter.depths) // 3 + 1)]
        settings = product(options.through or usual, options.steps, options.settled or [SETTLED])
        for through, steps, settled in settings:
            for cut in options.cuts or [through - 1]:
                began, where = time.perf_counter(), (depth, through, cut)
                parts = [search(inverter.chain, blocks, part, *where, steps, settled=settled) for part in y.split(8)]
                seconds = (time.perf_counter() - began) / len(images)
                how = f"through {through} from {cut}, {steps} steps, settled after {settled} descents"
                print(f"  {how}, {seconds:.1f} s an image: {said(torch.cat(parts))}", flush=True)


if __name__ == "__main__":
    main()
