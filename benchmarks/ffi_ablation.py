"""What each idea of the feedforward inversion earns at one budget, on glyphs; every row leaves out or changes one.

    python benchmarks/ffi_ablation.py [--classifier glyphs-standard-0] [--images 20000] [--steps 300] [--seeds 1]

Printed: PSNR (dB) and top-1 retrieval of 1000 unseen glyphs, read with the noise at its centre, and the seconds of CPU
time. All rows train on the same images, the seconds with their logits.
"""

import argparse
import time

import torch

import invkit
from invkit import ffi, ffi_recipes, metrics

ROWS = {
    "all ideas": {},
    "logits not whitened": {"generator": {"whiten": False}, "discriminator": {"whiten": False}},
    "no coarse image": {"generator": {"coarse": None}, "coarse_steps": 0},
    "coarse image read linearly": {"generator": {"coarse_hidden": None}, "coarse_steps": 0},
    "4x4 map seeded by noise alone": {"generator": {"seeded": False}},
    "noise on the logits": {"generator": {"logit_noise": 0.1}},
    "no spectral norm in the generator": {"generator": {"spectral": False}},
    "regression alone": {"objective": "regression"},
    "adversary alone": {"objective": "adversarial"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--classifier", default="glyphs-standard-0")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    classifier = invkit.load_classifier(args.classifier)
    images, unseen = ffi_recipes.draw("glyphs", args.images), invkit.data.load("glyphs", "validation", n=1000).images
    for name, change in ROWS.items():
        options = {"generator": {"coarse_hidden": 512}, "coarse_steps": 5 * args.steps, "objective": "hybrid"}
        generator = options["generator"] | change.get("generator", {})
        for seed in range(args.seeds):
            began = time.process_time()
            inverter = ffi.train_inverter(
                classifier, images, steps=args.steps, batch=48, seed=seed, precision="bf16", progress=False,
                **options | change | {"generator": generator},
            )  # fmt: skip
            seconds = time.process_time() - began
            with torch.no_grad():
                read = torch.cat([inverter.reconstruct(part) for part in unseen.split(100)])
            psnr = metrics.psnr(read, unseen).mean()
            found = metrics.retrieval_accuracy(read, unseen)
            print(f"{name:36s} seed {seed}  {psnr:6.2f} dB  {found:6.1%}  {seconds:5.0f} s", flush=True)


if __name__ == "__main__":
    main()
