"""Tunes the per-image optimisation baseline on synthetic images, so that it is a fair opponent to a trained inverse.

    python benchmarks/tune_optimisation.py --convolutions 9 15 24

One setting after another, at three depths of EfficientNet-Lite0, on dead leaves at 64 px; no photograph is looked at.
What it showed, mean PSNR in dB of 4 images (the images' mean colours alone: 13.3):

    convolutions                                   9     15     24
    100 steps, plain pixels, best of 3 rates    14.0   13.2   12.0
    100 steps, pyramid, no total variation      15.0   11.3    9.5
    100 steps, pyramid, tv = stride^2 / 10      18.5   15.0   13.2
    300 steps, plain pixels, tv = stride^2 / 10 20.7   16.8   13.3
    300 steps, pyramid, tv = stride^2 / 10      20.9   15.7   13.4
    300 steps, pyramid, tv = stride^2 / 40      21.6   17.2   14.5    <- the defaults of `invert_features`
"""

import argparse

from invkit.dci.synthetic import dead_leaves
from invkit.metrics import psnr
from invkit.network.classifiers import load_classifier
from invkit.optimize import invert_features

# tv is given in units of stride^2. All but the named setting: 100 steps, lr 0.02, beta 2, a whole pyramid, tv 0.1.
ALTERNATIVES = [
    *({"levels": 1, "lr": lr} for lr in (0.05, 0.2, 0.5)),
    *({"tv": tv} for tv in (0.0, 0.025, 0.4)),
    *({"tv": tv, "beta": 1.0} for tv in (0.005, 0.02)),
    *({"lr": lr} for lr in (0.01, 0.04)),
    *({"steps": 300, "tv": tv} for tv in (0.025, 0.1)),
    {"steps": 300, "levels": 1, "lr": 0.2},
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--convolutions", type=int, nargs="+", default=[9, 15, 24])
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    options = parser.parse_args()
    classifier = load_classifier("lite0")
    images = dead_leaves(options.images, options.size, seed=12345)
    mean_colour = images.mean((2, 3), keepdim=True).expand_as(images)
    print(f"mean colour of each image: {psnr(mean_colour, images).mean():.2f} dB")
    for convolutions in options.convolutions:
        block = next(block for block in classifier.blocks if block.convolutions == convolutions)
        print(f"\n{convolutions} convolutions, stride {block.stride}\n   PSNR  s/image  settings")
        features = classifier.features(images, block.depth)
        for alternative in [{}, *ALTERNATIVES]:
            settings = {"steps": 100, "tv": 0.1, **alternative}
            settings["tv"] *= block.stride**2
            found = invert_features(classifier, features, block.depth, size=options.size, **settings)
            quality = psnr(found.estimate, images).mean()
            print(f"{quality:7.2f} {found.seconds / len(images):8.2f}  {alternative or ''}", flush=True)


if __name__ == "__main__":
    main()
