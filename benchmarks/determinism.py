"""Which numbers stay equal to the bit when threads, cores or the processor change, and by how much the others move.

    python benchmarks/determinism.py --page book/determinism.md     # a few minutes on two cores

Every change is a process of its own, which computes the same quantities as the first and keeps them in a file. Another
processor is one that lacks some instructions: PyTorch and oneDNN are told to do without them.

    python benchmarks/determinism.py --results ONE TWO

compares the results of the same notebooks in two folders, such as build/quick/executed on two machines, with the
tolerances of `make check`, and prints a table.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor, nn

import invkit
from invkit.dci.synthetic import dead_leaves
from invkit.training import Player, train
from study.page_tables import replace_between

BEGIN, END = "<!-- made by benchmarks/determinism.py: begin -->", "<!-- end -->"
OLDER = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
OLDEST = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}
CHANGES = {  # each beside two threads on two cores
    "run again": {},
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "4 threads": {"OMP_NUM_THREADS": "4"},
    "1 core": {"CORES": "1"},
    "no AVX-512": OLDER,
    "no AVX": OLDEST,
}
N = 8  # glyphs


# ---- what is computed ------------------------------------------------------------------------------------------------


def quantities() -> dict[str, Tensor]:
    """``{what: numbers}``, in the order of the page."""
    glyphs = invkit.data.load("glyphs", split="test", n=N).images
    photos = invkit.data.load("photos", n=1, size=224).images
    logits_of, blocks_of = invkit.load_inverter("ffi-glyphs-robust"), invkit.load_inverter("dci-lite0")
    with torch.no_grad():
        logits = logits_of.represent(glyphs)
        read = logits_of.invert(logits, noise=logits_of.sample_noise(N, seed=0))
        seen = blocks_of.reconstruct(photos, depth=12)
    found = {
        "glyphs": glyphs,
        "dead leaves": dead_leaves(1, 64, seed=0),
        "logits of a classifier of glyphs": logits,
        "reconstructions from logits": read,
        "reconstructions of photos at depth 12": seen,
        "PSNR of these in dB": invkit.metrics.psnr(seen, photos),
        "SSIM of these": invkit.metrics.ssim(seen, photos),
    }
    for steps in (5, 50):
        found[f"what a small network makes of glyphs after {steps} steps"] = made_after(steps, glyphs)
    return found


def made_after(steps: int, images: Tensor) -> Tensor:
    """By a denoiser.

    Its weights themselves would say less: Adam moves a bias before a batch norm, which changes nothing, by rounding.
    """
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1)
    )

    def loss(module, batch, step):
        return (module(batch + 0.1 * torch.randn_like(batch)) - batch).square().mean(), {}

    train(Player("network", network, loss, 1e-3), lambda step: images, steps=steps, progress=False, precision="no")
    with torch.no_grad():
        return network(images)


def compute(file: Path) -> None:
    """What a process of its own does; see `under`."""
    if "CORES" in os.environ:
        psutil.Process().cpu_affinity([0])
    np.savez(file, **{name: tensor.numpy() for name, tensor in quantities().items()})


def under(change: dict[str, str], folder: Path) -> dict[str, np.ndarray]:
    """The quantities as another process finds them, with these variables in its environment."""
    file = folder / "found.npz"
    command = [sys.executable, __file__, "--compute", str(file)]
    subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "2"} | change, check=True)
    with np.load(file) as found:
        return dict(found)


# ---- the page --------------------------------------------------------------------------------------------------------


def apart(one: np.ndarray, other: np.ndarray) -> str:
    """ "equal", or the largest difference as a share of the root mean square."""
    if np.array_equal(one, other):
        return "equal"
    return f"{np.abs(one - other).max() / np.sqrt(np.square(one).mean()):.0e}"


def changes_table() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        first = under({}, Path(folder))
        others = [under(change, Path(folder)) for change in CHANGES.values()]
    rows = [[name, *(apart(numbers, other[name]) for other in others)] for name, numbers in first.items()]
    return [f"| {' | '.join(cells)} |" for cells in (["what", *CHANGES], ["---"] * (1 + len(CHANGES)), *rows)]


def results_table(one: Path, two: Path) -> list[str]:
    """Of every notebook in both folders: how many numbers are equal, and how far the others lie in their tolerances."""
    lines = ["| chapter | numbers | equal | largest difference, of its tolerance |", "|---|---|---|---|"]
    for path in sorted(one.glob("*.results.json")):
        if (two / path.name).exists():
            shares = shares_of_tolerance(json.loads(path.read_text()), json.loads((two / path.name).read_text()))
            equal, largest = sum(share == 0 for share in shares), max(shares)
            lines.append(f"| {path.name.partition('.')[0]} | {len(shares)} | {equal} | {largest:.0%} |")
    return lines


def shares_of_tolerance(one: dict, other: dict) -> list[float]:
    """|difference| / tolerance of every number that `make check` compares; one without any tolerance must be equal."""
    numbers = {id: result for id, result in one.items() if result.get("tolerance") is not None}
    found = [(abs(result["value"] - other[id]["value"]), result["tolerance"]) for id, result in numbers.items()]
    return [difference / tolerance if tolerance else float(difference > 0) for difference, tolerance in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", type=Path)
    parser.add_argument("--results", type=Path, nargs=2)
    parser.add_argument("--compute", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compute:
        return compute(options.compute)
    lines = results_table(*options.results) if options.results else changes_table()
    print(*lines, sep="\n")
    if options.page and not options.results:
        replace_between(options.page, BEGIN, END, lines)


if __name__ == "__main__":
    main()
