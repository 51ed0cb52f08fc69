"""How long to search behind a reading (`invkit.search`), on synthetic images that no training has seen.

    python benchmarks/search_steps.py --depths 12 15 --steps 20 40 80

Mean PSNR in dB of held-out dead leaves read by dci-lite0 from each depth, once and after a search; no photograph is
looked at. What it showed with the defaults, 16 leaves, 40 steps (5 to 6 s an image on one core of two):

    depth (convolutions)    read once    searched    the search's last reading alone
    12 (33)                     16.05       16.32       15.92
    15 (42)                     14.66       14.55       13.88
"""

import argparse
import time

import torch

import invkit
from invkit import dci
from invkit.metrics import psnr
from invkit.search import search
from invkit.synthetic import draw_pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inverter", default="dci-lite0")
    parser.add_argument("--depths", type=int, nargs="+", default=[12, 15])
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 40, 80])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.06])
    parser.add_argument("--through", type=int, nargs="+", help="depths searched through; by default the middle")
    parser.add_argument("--images", type=int, default=16)
    options = parser.parse_args()
    inverter = invkit.load_inverter(options.inverter)
    blocks = dci.classifier_blocks(inverter.classifier)
    images = draw_pool(64, 320, seed=777, pink=0).batch(0, options.images, inverter.size)  # cut as in training
    for depth in options.depths:
        y = torch.cat([inverter.represent(part, depth) for part in images.split(8)])
        first = torch.cat([inverter.invert(part, depth, feedback=False) for part in y.split(8)])
        print(f"depth {depth}: read once {psnr(first, images).mean():.2f} dB")
        for through in options.through or [min(depth, len(inverter.depths) // 2)]:
            for rate in options.rates:
                for steps in options.steps:
                    began = time.perf_counter()
                    parts = [search(inverter.chain, blocks, part, depth, through, steps, rate) for part in y.split(8)]
                    seconds = (time.perf_counter() - began) / len(images)
                    mean = torch.cat(parts)
                    last = (2 * mean - first).clamp(0, 1)
                    print(
                        f"  through {through}, rate {rate:g}, {steps} steps: {psnr(mean, images).mean():.2f} dB, the"
                        f" last reading alone {psnr(last, images).mean():.2f} dB; {seconds:.1f} s an image",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
