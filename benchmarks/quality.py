"""PSNR and retrieval of a shipped zero-shot inverter on a folder of photos, by depth, without the rest of chapter 7.

    python benchmarks/quality.py folder:data/imagenet-samples [--inverter dci-lite0] [--photos 200]

Retrieval is among all photos given: cosine similarity after subtracting their mean image. Intervals are 95 %.
"""

import argparse

import invkit
from invkit import data, metrics, statistics
from study.chapters import zero_shot_inversion
from study.reconstructions import reconstruct_every_depth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", help="a data set's name, or folder:PATH")
    parser.add_argument("--inverter", default="dci-lite0")
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--convolutions", type=int, nargs="+", default=[3, 9, 15, 24, 33, 42])
    args = parser.parse_args()
    inverter = invkit.load_inverter(args.inverter)
    photos = data.load(args.images, n=args.photos, size=inverter.size).images
    flat = statistics.bootstrap(metrics.psnr(zero_shot_inversion.mean_colour(photos), photos))
    print(f"{len(photos)} photos; their mean colours score {flat.value:.2f} dB")
    for convolutions, depth in zero_shot_inversion.depths_near(inverter, args.convolutions).items():
        timed = reconstruct_every_depth(inverter, photos, [depth])[depth]
        psnr = statistics.bootstrap(metrics.psnr(timed.images, photos))
        found = statistics.proportion(metrics.retrieval_ranks(timed.images, photos) == 1)
        print(
            f"{convolutions:3d} convolutions: {psnr.value:5.2f} dB [{psnr.low:.2f}, {psnr.high:.2f}], "
            f"found {found.value:.1%} [{found.low:.1%}, {found.high:.1%}], {timed.seconds:.3f} s a photo",
            flush=True,
        )


if __name__ == "__main__":
    main()
