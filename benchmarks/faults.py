"""What trainings and files survive: faults made on purpose, so many times each, in a table.

    python benchmarks/faults.py [--times 10] [--files 2000] [--table book/what_survives.md] [--strict]

A small training of two players is killed, stopped and hindered at random moments, and goes on. It has survived where
its finished weights, averages and moments are bit for bit those of an undisturbed one, and whatever was said was one
sentence. Files that were changed at random (`benchmarks/fuzz.py`) have to be read right or end in one sentence.
With --table, the table in that page is replaced.
"""

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import accelerate  # noqa: F401 (here, so that no child takes seconds to import it)
import fuzz
import numpy as np
import timm.utils  # noqa: F401
import torch
import torch.utils.tensorboard  # noqa: F401
from torch import nn

from invkit import checkpoint, cli, store
from invkit.training import CHECKPOINT, Player, train
from study.page_tables import replace_between

STEPS, PAUSE = 60, 0.003
BEGIN, END = "<!-- made by benchmarks/faults.py: begin -->", "<!-- end -->"


def batch(step: int) -> torch.Tensor:
    time.sleep(PAUSE)
    return torch.rand(4, 3, 10, 10, generator=torch.Generator().manual_seed(step))


def players() -> list[Player]:
    """A denoiser, and a critic that tells its images from noise."""
    torch.manual_seed(0)
    maker = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1), nn.Conv2d(8, 3, 3))
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 1))

    def criticise(module, images, step):
        return (module(maker(images).detach()) - module(images[..., 2:-2, 2:-2])).tanh().mean(), {}

    def please(module, images, step):
        made = module(images + 0.1 * torch.randn_like(images))
        return (made - images[..., 2:-2, 2:-2]).square().mean() - 0.1 * critic(made).tanh().mean(), {}

    return [Player("critic", critic, criticise, 1e-3), Player("maker", maker, please, 1e-3, betas=(0.0, 0.999))]


class Bench:
    """Trainings in processes of their own, in one folder."""

    def __init__(self, folder: Path):
        self.folder, self.said = folder, folder / "said.txt"
        assert self.train(folder / "undisturbed") == 0
        self.expected = checkpoint.newest(folder / "undisturbed")[0]

    def start(self, place: Path, hinder: Callable[[int], None] = lambda step: None) -> int:
        """The process id of a training that was begun."""

        def batches(step):
            hinder(step)
            return batch(step)

        settings = {"steps": STEPS, "ema": 0.9, "checkpoint_every_steps": 4, "progress": False, "folder": place}
        command = lambda options: train(players(), batches, **settings)  # noqa: E731
        child = os.fork()
        if child == 0:
            with open(self.said, "w") as said:
                os.dup2(said.fileno(), 2)
            torch.set_num_threads(1)
            try:
                code = cli.run(SimpleNamespace(command=command))
            except SystemExit as stop:
                code = stop.code
            sys.stderr.flush()
            os._exit(code)
        return child

    def train(self, place: Path, hinder: Callable[[int], None] = lambda step: None) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.start(place, hinder), 0)[1])

    def same(self, place: Path) -> bool:
        """Go on to the end; whether that is the undisturbed one."""
        if self.train(place) != 0:
            return False
        found = checkpoint.newest(place)[0]
        return found.keys() == self.expected.keys() and all(torch.equal(found[k], self.expected[k]) for k in found)

    def sentences(self) -> int:
        """How many lines were said; warnings are two lines each."""
        return len(self.said.read_text().strip().splitlines())


def killed(bench: Bench, place: Path, random: np.random.Generator) -> bool:
    """Three times in one training."""
    for _ in range(3):
        child = bench.start(place)
        time.sleep(random.uniform(0.05, 0.6))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return bench.same(place)


def stopped(number: signal.Signals, bench: Bench, place: Path, random: np.random.Generator) -> bool:
    at = int(random.integers(5, STEPS - 5))
    code = bench.train(place, lambda step: os.kill(os.getpid(), number) if step == at else None)
    near = abs(checkpoint.newest(place)[1]["step"] - at) <= 3  # batches are made two steps ahead
    return code == 128 + number and bench.sentences() == 1 and near and bench.same(place)


def damaged(how: str, bench: Bench, place: Path, random: np.random.Generator) -> bool:
    at = int(random.integers(10, STEPS - 5))
    bench.train(place, lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == at else None)
    content = bytearray((place / CHECKPOINT).read_bytes())
    start = int(random.integers(len(content)))
    if how == "bit":
        content[start] ^= 1 << int(random.integers(8))
    (place / CHECKPOINT).write_bytes(content if how == "bit" else content[:start])
    return bench.same(place) and "is damaged" in bench.said.read_text()


def full_disk(bench: Bench, place: Path, random: np.random.Generator) -> bool:
    """From a step on, no file may grow beyond 10 kB."""
    at = int(random.integers(10, STEPS - 5))
    limit = lambda step: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)) if step == at else None  # noqa: E731
    code = bench.train(place, limit)
    said = [line for line in bench.said.read_text().splitlines() if line.startswith("invkit: ")]
    return code == 1 and len(said) == 1 and "make room" in said[0] and bench.same(place)


def vanishes(bench: Bench, place: Path, random: np.random.Generator) -> bool:
    at = int(random.integers(10, STEPS - 5))
    bench.train(place, lambda step: shutil.rmtree(place, ignore_errors=True) if step == at else None)
    return bench.same(place)


def two_at_once(bench: Bench, place: Path, random: np.random.Generator) -> bool:
    first = bench.start(place)
    while not (place / CHECKPOINT).exists():
        time.sleep(0.01)
    refused = bench.train(place) == 1 and "Another process trains" in bench.said.read_text() and bench.sentences() == 1
    os.waitpid(first, 0)
    return refused and bench.same(place)


def damaged_cache(bench: Bench, place: Path, random: np.random.Generator) -> bool:
    file, tensors = place / "kept.safetensors", {"logits": torch.rand(50, 10)}
    store.kept(file, lambda: tensors)
    content = bytearray(file.read_bytes())
    content[random.integers(len(content))] ^= 1 << int(random.integers(8))
    file.write_bytes(content)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        again = store.kept(file, lambda: tensors)["logits"]
    return torch.equal(again, tensors["logits"]) and len(said) == 1


FAULTS = {
    "Training of two players killed with `kill -9`, three times each": killed,
    "SIGTERM in a training": lambda *given: stopped(signal.SIGTERM, *given),
    "Ctrl-C in a training": lambda *given: stopped(signal.SIGINT, *given),
    "One bit of the checkpoint flipped": lambda *given: damaged("bit", *given),
    "Checkpoint cut short": lambda *given: damaged("cut", *given),
    "Disk full in a training": full_disk,
    "Folder of a training deleted while it runs": vanishes,
    "A second training in the same folder": two_at_once,
    "One bit of kept logits flipped": damaged_cache,
}


def table(times: int, files: int) -> list[str]:
    rows = ["| fault | tried | survived |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        for name, fault in FAULTS.items():
            good = 0
            for number in range(times):
                place = Path(folder) / f"run-{number}"
                place.mkdir()
                good += fault(bench, place, np.random.default_rng(number))
                shutil.rmtree(place)
            rows.append(f"| {name} | {times} | {good} |")
            print(rows[-1], flush=True)
    for kind, ends in fuzz.fuzz(fuzz.KINDS, files).items():
        rows.append(f"| A file changed at random: {kind} | {files:,} | {ends['right'] + ends['sentence']:,} |")
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--strict", action="store_true", help="exit with 1 where not everything survived")
    options = parser.parse_args()
    rows = table(options.times, options.files)
    if options.table:
        replace_between(options.table, BEGIN, END, rows)
    if options.strict and any(row.split("|")[2].strip() != row.split("|")[3].strip() for row in rows[2:]):
        sys.exit("Not everything survived.")
    if options.strict and fuzz.memory() > fuzz.MOST_MEMORY:
        sys.exit(f"It took {fuzz.memory():.1f} GB, more than {fuzz.MOST_MEMORY}.")
