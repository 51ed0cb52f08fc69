"""How to search behind a reading (`invkit.search`), on synthetic images that no training has seen.

    python benchmarks/search_steps.py --depths 12 15 --steps 40 160 320

Mean PSNR in dB of held-out dead leaves, and of held-out images that show a class (`recipes.showing_classes`, a minute
and a half for 16), read by dci-lite0 from each depth, once and after a search; no photograph is looked at.

RESULTS
"""

import argparse
import time
from itertools import product

import torch
from torchvision.transforms.functional import center_crop

import invkit
from invkit import dci
from invkit.metrics import psnr
from invkit.recipes import showing_classes
from invkit.search import search
from invkit.synthetic import draw_pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inverter", default="dci-lite0")
    parser.add_argument("--depths", type=int, nargs="+", default=[12, 15])
    parser.add_argument("--steps", type=int, nargs="+", default=[40, 160, 320])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.06])
    parser.add_argument("--through", type=int, nargs="+", help="depths searched through; by default a third of the way")
    parser.add_argument("--cuts", type=int, nargs="+", help="depths represented from; by default one less")
    parser.add_argument("--images", type=int, default=16, help="of each kind, at most 16")
    options = parser.parse_args()
    inverter = invkit.load_inverter(options.inverter)
    blocks = dci.classifier_blocks(inverter.classifier)
    leaves = draw_pool(64, 320, seed=777, pink=0).batch(0, options.images, inverter.size)  # cut as in training
    shown = showing_classes(inverter.classifier, 16, seed=777)[: options.images]
    images = torch.cat([leaves, center_crop(shown, inverter.size)])

    def said(readings: torch.Tensor) -> str:
        of_leaves, of_shown = psnr(readings, images).split(options.images)
        return f"leaves {of_leaves.mean():.2f}, shown {of_shown.mean():.2f} dB"

    for depth in options.depths:
        y = torch.cat([inverter.represent(part, depth) for part in images.split(8)])
        first = torch.cat([inverter.invert(part, depth, feedback=False) for part in y.split(8)])
        print(f"depth {depth}: read once, {said(first)}")
        usual = [min(depth, len(inverter.depths) // 3 + 1)]
        for through, rate, steps in product(options.through or usual, options.rates, options.steps):
            for cut in options.cuts or [through - 1]:
                began = time.perf_counter()
                parts = [search(inverter.chain, blocks, part, depth, through, cut, steps, rate) for part in y.split(8)]
                seconds = (time.perf_counter() - began) / len(images)
                mean = torch.cat(parts)
                print(
                    f"  through {through} from {cut}, rate {rate:g}, {steps} steps: {said(mean)}; the last reading "
                    f"alone {said((2 * mean - first).clamp(0, 1))}; {seconds:.1f} s an image",
                    flush=True,
                )


if __name__ == "__main__":
    main()
