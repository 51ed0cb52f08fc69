"""What is fast and by how much, as ratios measured in one run: the page "Speed and scale".

    python benchmarks/speed.py [--seconds 5] [--device cuda] [--page book/speed.md]
    python benchmarks/speed.py --redraw --page book/speed.md    # the charts alone, from the numbers in the page

Each row sets one thing beside another that is measured in turns with it, so that a busy machine slows both: the median
over the turns of the ratio of two neighbouring measurements, and the middle half of these ratios. With --page, the
table and the charts of that page are replaced: a wide chart, and one for a phone, which `study.web_pages` offers too.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import invkit
from invkit import dci, optimize, precision
from invkit.data import glyphs
from invkit.dci import synthetic
from invkit.dci.training import loss_terms
from invkit.ffi import biggan, training
from invkit.training import train
from recipes.dci import LITE0_SIZES
from recipes.ffi import GLYPHS_GENERATOR
from study import plots
from study.live_glyphs import doubled_plainly
from study.page_tables import replace_between

BEGIN, END = "<!-- made by benchmarks/speed.py: begin -->", "<!-- end -->"
OPTIMISED = 200  # steps of the optimisation that chapter 7 compares with
DEPTHS = 2, 9, 15  # blocks of lite0, which end 3, 24 and 42 convolutions


@dataclass(frozen=True)
class Row:
    what: str
    against: str
    low: float
    middle: float
    high: float
    sign: str
    goal: float
    unit: str

    def cells(self) -> list[str]:
        low, middle, high = (f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}" for x in (self.low, self.middle, self.high))
        spread = f" [{low}, {high}]" if self.low < self.high else ""
        return [self.what, self.against, f"{middle}{spread} {self.unit}", f"{self.sign} {self.goal:,g} {self.unit}"]

    def reached(self) -> float:
        """How many times the goal is reached: above 1 it is met."""
        return self.middle / self.goal if self.sign == "≥" else self.goal / self.middle


class Bench:
    """Measures on one device; `rows` are those of the table."""

    def __init__(self, seconds: float, device: str):
        self.seconds, self.device, self.rows = seconds, torch.device(device), []

    def once(self, run: Callable[[], object]) -> float:
        """Seconds of one call."""
        self._wait()
        start = time.perf_counter()
        run()
        self._wait()
        return time.perf_counter() - start

    def ratios(self, ours: Callable[[], object], other: Callable[[], object]) -> list[float]:
        """Seconds of the other over seconds of ours, in turns, for as long as there is time."""
        found, start = [], time.perf_counter()
        ours(), other()  # for allocations and the choice of kernels
        while len(found) < 5 or time.perf_counter() - start < self.seconds:
            found.append(self.once(other) / self.once(ours))
        return found

    def row(self, what: str, against: str, ratios: Sequence[float], sign: str, goal: float, unit: str) -> None:
        """Keep and print a row; the goal is "≥" or "≤" a number, in the unit of the ratios."""
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        self.rows.append(Row(what, against, low, middle, high, sign, goal, unit))
        print(" | ".join(self.rows[-1].cells()), flush=True)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


# ---- the first paper: a step of the generator and its discriminator --------------------------------------------------


def step_of(size: int, device: torch.device, autocast: bool) -> Callable[[], None]:
    """One step of both players, on a batch of 48 that lies on the device."""
    torch.manual_seed(0)
    channels = GLYPHS_GENERATOR["channels"] + (32,) * (size == 64)
    g = biggan.LogitGenerator(size, 100, **GLYPHS_GENERATOR | {"channels": channels}).to(device).train()
    d = biggan.ProjectionDiscriminator(size, 100).to(device).train()
    players = training.adversarial_players(g, d, training.WEIGHTS, None, 2e-4)
    optimisers = [torch.optim.AdamW(p.module.parameters(), p.lr, betas=p.betas) for p in players]
    images = torch.rand(48, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)
    z = torch.randn(48, 100, device=device)

    def step() -> None:
        for player, optimiser in zip(players, optimisers, strict=True):
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                loss, _ = player.loss(player.module, (images, z), 0)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

    return step


def generator_steps(bench: Bench) -> None:
    fast = precision.resolve("auto", bench.device) == "bf16"
    plain_torch = patch.object(torch, "channels_last", torch.contiguous_format)
    for size in (32, 64):
        with patch.object(training, "check_samples"):  # random images are none that it should look at
            ours = step_of(size, bench.device, fast)
            with plain_torch, doubled_plainly():
                plain = step_of(size, bench.device, False)

            def other(plain=plain):
                with plain_torch, doubled_plainly():
                    plain()

            goal = 3 if bench.device.type == "cuda" else 1.5
            against = "the same in plain PyTorch: float32, contiguous, no folded up-sampling"
            what = f"training step, generator and discriminator, {size} px"
            bench.row(what, against, bench.ratios(ours, other), "≥", goal, "times as fast")
            shares = [100 / ratio for ratio in bench.ratios(convolutions_of(ours), ours)]
            goal = 35 if bench.device.type == "cuda" else 60
            bench.row(what, "its convolutions alone, one after another", shares, "≥", goal, "% of its time")


class Convolutions(TorchDispatchMode):
    """Notes the convolutions that run inside it, forward and backward, with the tensors that each was given."""

    OPERATIONS = (torch.ops.aten.convolution.default, torch.ops.aten.convolution_backward.default)

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, operation, types, arguments=(), named=None):
        if operation in self.OPERATIONS:
            self.calls.append((operation, arguments))
        return operation(*arguments, **(named or {}))


def convolutions_of(step: Callable[[], object]) -> Callable[[], None]:
    """The convolutions of a training step by themselves: the same kernels, on the same shapes, and nothing between."""
    with Convolutions() as noted:
        step()

    @torch.no_grad()
    def alone() -> None:
        for operation, arguments in noted.calls:
            operation(*arguments)

    return alone


# ---- the second paper: one pass back ---------------------------------------------------------------------------------


def passes(bench: Bench) -> None:
    """Classifier, inverse and optimisation, all in bfloat16 where the device is fast at it."""
    with precision.autocast(bench.device):
        _passes(bench)


def _passes(bench: Bench) -> None:
    inverter = invkit.load_inverter("dci-lite0").to(bench.device)
    classifier = inverter.classifier
    for depth in DEPTHS:
        count = classifier.blocks[depth - 1].convolutions
        for n in (1, 32):
            images = torch.rand(n, 3, 224, 224, device=bench.device)
            with torch.no_grad():
                h = inverter.represent(images, depth)
            forward = lambda images=images, depth=depth: classifier.features(images, depth)  # noqa: E731
            back = lambda h=h, depth=depth: inverter.invert(h, depth)  # noqa: E731
            ratios = [1 / ratio for ratio in bench.ratios(back, forward)]
            what = f"{count} convolutions of lite0 inverted, batch {n}"
            bench.row(what, "the classifier's forward pass to there", ratios, "≤", 3, "times as long")
        few = lambda h=h, depth=depth: optimize.invert_features(classifier, h[:1], depth, steps=4)  # noqa: E731
        one = lambda h=h, depth=depth: inverter.invert(h[:1], depth)  # noqa: E731
        ratios = [OPTIMISED / 4 * ratio for ratio in bench.ratios(one, few)]
        against = f"{OPTIMISED} steps of optimisation of the pixels"
        bench.row(f"{count} convolutions of lite0 inverted, batch 1", against, ratios, "≥", 1000, "times as fast")


def chain_step(size: int, n: int, device: torch.device, depth: int = 9) -> Callable[[], None]:
    """A training step of the first inverses of lite0, up to a depth, with all three terms."""
    classifier = invkit.load_classifier("lite0").to(device)
    shapes = [(3, 224, 224), *(tuple(block.shape) for block in classifier.blocks[:depth])]
    chain = dci.Chain(shapes, LITE0_SIZES[:depth]).to(device, memory_format=torch.channels_last)
    blocks, fast = dci.classifier_blocks(classifier)[:depth], precision.resolve("auto", device) == "bf16"
    images = torch.rand(n, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=fast):
            with torch.no_grad():
                hidden = dci.represent(blocks, images, depth)
            loss, _ = loss_terms(chain(hidden[-1], depth), hidden, blocks, [1.0], dci.ChainLossWeights())
        loss.backward()

    return step


def batches(bench: Bench) -> None:
    """What making a batch costs beside a step that uses it."""
    step = chain_step(128, 16, bench.device)
    pool = synthetic.draw_pool(48, 320, device=bench.device)
    cut = [100 / ratio for ratio in bench.ratios(lambda: pool.batch(0, 16, 128), step)]
    bench.row("16 crops of dead leaves, 128 px", "a training step of nine inverses", cut, "≤", 5, "%")
    fast = precision.resolve("auto", bench.device) == "bf16"
    with patch.object(training, "check_samples"):
        step = step_of(32, bench.device, fast)
        images = (glyphs.draw(512, size=32).images * 255).byte().to(bench.device)
        taken = lambda: images[torch.randint(512, (48,), device=bench.device)].float() / 255  # noqa: E731
        ratios = [100 / ratio for ratio in bench.ratios(taken, step)]
    bench.row("48 cached glyphs, 32 px", "a training step of generator and discriminator", ratios, "≤", 5, "%")


# ---- scale -----------------------------------------------------------------------------------------------------------


def exponents(bench: Bench) -> None:
    """Time and memory of a training step against pixels, batch and depth: exponents of a power law, of medians."""

    def seconds(size: int, n: int, depth: int = 9) -> float:
        step = chain_step(size, n, bench.device, depth)
        return float(np.median([bench.once(step) for _ in range(5)][1:]))

    by_pixels = {size**2: seconds(size, 8) for size in (64, 96, 128, 192, 256)}
    by_images = {n: seconds(128, n) for n in (4, 8, 16, 32)}
    by_depth = {depth: seconds(128, 8, depth) for depth in (2, 4, 8, 16)}
    before = peak(bench.device, 0)
    memory = {n: peak(bench.device, n) - before for n in (8, 16, 32)}
    for what, values in {
        "training step of nine inverses, from {:,} to {:,} pixels in an image": by_pixels,
        "training step of nine inverses, from {:,} to {:,} images in the batch": by_images,
        "training step of {:,} to {:,} inverses": by_depth,
        "memory that a training step adds, 224 px, from {:,} to {:,} images in the batch": memory,
    }.items():
        slope = float(np.polyfit(np.log(list(values)), np.log(list(values.values())), 1)[0])
        bench.row(what.format(min(values), max(values)), "a power law", [slope], "≤", 1.1, "(exponent)")
    bench.row("peak of a training step of nine inverses, 224 px, batch 16", "memory",
              [memory[16] + before], "≤", 4, "GiB")  # fmt: skip


def peak(device: torch.device, n: int) -> float:
    """GiB that a process of its own takes for a training step of nine inverses on n images of 224 px, or for none."""
    command = [sys.executable, __file__, "--memory", f"{n}", "--device", device.type]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def several(bench: Bench) -> None:
    """Images a second and process of two processes, beside one; each has one thread and a whole batch."""

    def rate(processes: int) -> float:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += [__file__, "--worker"]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"},
        )  # fmt: skip
        return 1 / float(done.stdout.split()[-1])

    ratios = [rate(2) / rate(1) for _ in range(3)]
    bench.row("training of generator and discriminator, 32 px, in two processes", "in one, an image and process",
              ratios, "≥", 0.8, "times as fast")  # fmt: skip


def worker() -> None:
    """Print the seconds of 30 steps of this process; see `several`."""
    with patch.object(training, "check_samples"):
        torch.manual_seed(0)
        g, d = biggan.LogitGenerator(32, 100, **GLYPHS_GENERATOR), biggan.ProjectionDiscriminator(32, 100)
        players = training.adversarial_players(g, d, training.WEIGHTS, None, 2e-4)
        batch = torch.rand(48, 3, 32, 32), torch.randn(48, 100)
        done = train(players, lambda step: batch, steps=30, progress=False)
    if os.environ.get("RANK", "0") == "0":
        print(done.seconds)


def print_peak(device: str, n: int) -> None:
    """Print the peak of this process, in GiB, after a training step at 224 px with a batch of n; before one for 0."""
    step = chain_step(224, max(1, n), torch.device(device))
    if n:
        step()
    print((torch.cuda.max_memory_allocated() if device == "cuda" else _peak_of_process()) / 2**30)


def _peak_of_process() -> int:
    """Bytes. Linux lets a process inherit the peak that getrusage tells from the one that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


KEPT = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**30)}  # as the Makefile sets them


def passes_alone() -> None:
    """Print the seconds of a pass of lite0 on 16 photos, the median of eight, in a process of its own."""
    classifier, photos, seconds = invkit.load_classifier("lite0"), torch.rand(16, 3, 224, 224), []
    with torch.inference_mode():
        for _ in range(10):
            start = time.perf_counter()
            classifier.logits(photos)
            seconds.append(time.perf_counter() - start)
    print(float(np.median(seconds[2:])))


def allocator(bench: Bench) -> None:
    """What it earns that a process keeps the memory of its large buffers, where the C library is glibc."""
    command = [sys.executable, __file__, "--passes"]
    plain = {name: value for name, value in os.environ.items() if name not in KEPT}
    ratios = []
    for _ in range(5):
        one, other = (
            float(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
            for env in (plain | KEPT, plain)
        )
        ratios.append(other / one)
    bench.row(
        "lite0 on the processor, 16 photos, large buffers kept",
        "given back to the system",
        ratios,
        "≥",
        1.1,
        "times as fast",
    )


# ---- the page --------------------------------------------------------------------------------------------------------


FIGURE = """```{figure} images/speed.svg
:name: fig-speed
:alt: A dot for each row of the table, on a logarithmic axis, with a dashed line where its goal is met.
How many times each row reaches its goal: MET of ALL reach it.
```"""


def write(page: Path, rows: Sequence[Row], machine: str) -> None:
    """Replace the page's table and its charts."""
    lines = ["| what | against | measured | goal |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(row.cells())} |" for row in rows]
    figure = FIGURE.replace("MET", f"{sum(row.reached() >= 1 for row in rows)}").replace("ALL", f"{len(rows)}")
    replace_between(page, BEGIN, END, [f"Measured on {machine}.", "", *lines, "", figure])
    draw(page, rows)


CELL = re.compile(r"(?P<middle>[\d.,]+)(?: \[(?P<low>[\d.,]+), (?P<high>[\d.,]+)\])? (?P<unit>.+)")


def read(page: Path) -> list[Row]:
    """The rows of a page's table, as far as its digits go."""
    table = page.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    rows = []
    for line in re.findall(r"^\| (.+ [≥≤] .+) \|$", table, re.MULTILINE):
        what, against, measured, goal = line.split(" | ")
        found, sign = CELL.fullmatch(measured), goal[0]
        number = {name: float((found[name] or found["middle"]).replace(",", "")) for name in ("low", "middle", "high")}
        level = float(CELL.fullmatch(goal[2:])["middle"].replace(",", ""))
        rows.append(Row(what, against, **number, sign=sign, goal=level, unit=found["unit"]))
    return rows


def draw(page: Path, rows: Sequence[Row]) -> None:
    """The page's charts: names beside the dots, and for narrow screens above them."""
    plt.rcParams["svg.hashsalt"] = "speed"  # the same numbers give the same files
    reached, names = [row.reached() for row in rows], [f"{row.what}: {row.unit}" for row in rows]
    with plots.canvas(12.0, 0.9 + 0.32 * len(rows)) as (figure, axis):
        axis.scatter(reached, names, color=plots.COLOURS[0], zorder=3)
        _goal(axis)
        figure.savefig(page.parent / "images" / "speed.svg", bbox_inches="tight", metadata={"Date": None})
    with plots.canvas(3.7, 0.7 + 0.62 * len(rows)) as (figure, axis):
        axis.scatter(reached, range(len(rows)), color=plots.COLOURS[0], zorder=3)
        ground = {"bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1}}  # the dashed line stops at words
        for place, name in enumerate(names):
            words = textwrap.fill(name, 46)
            axis.text(
                0, place - 0.2, words, transform=axis.get_yaxis_transform(), fontsize=9, va="bottom", zorder=4, **ground
            )
        axis.spines["left"].set_visible(False)
        axis.set(yticks=[], ylim=(-0.9, len(rows) - 0.6))
        _goal(axis)
        figure.savefig(page.parent / "_static" / "speed_narrow.svg", metadata={"Date": None})


def _goal(axis) -> None:
    axis.axvline(1, color=plots.GREY, linestyle="--", zorder=1)
    axis.set(xscale="log", xlabel="times the goal; right of the dashed line it is met")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.invert_yaxis()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="time spent on each row")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--page", type=Path, help="a page whose table is replaced")
    parser.add_argument("--redraw", action="store_true", help="only draw the page's charts again from its table")
    parser.add_argument("--memory", type=int, metavar="N", help="only print the peak of a step on N images, in GiB")
    parser.add_argument("--passes", action="store_true", help="only print the seconds of a pass of lite0")
    parser.add_argument("--worker", action="store_true", help="only train, as one of several processes")
    options = parser.parse_args()
    if options.redraw:
        if options.page is None:
            parser.error("--redraw needs --page: the page whose table it draws.")
        return draw(options.page, read(options.page))
    if options.memory is not None or options.worker:
        return worker() if options.worker else print_peak(options.device, options.memory)
    if options.passes:
        return passes_alone()
    bench = Bench(options.seconds, options.device)
    name = torch.cuda.get_device_name() if options.device == "cuda" else invkit.store.machine_class()
    machine = f"{name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"
    machine += f", precision {precision.resolve('auto', bench.device)}"
    print(machine)
    of_processors = (several, allocator) if options.device == "cpu" else ()  # one GPU has no second process
    for part in (generator_steps, passes, batches, exponents, *of_processors):
        part(bench)
    if options.page:
        write(options.page, bench.rows, machine)


if __name__ == "__main__":
    main()
