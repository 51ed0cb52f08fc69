"""A training of given length: phases share the minutes, the inverter is written early and at the end."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from invkit import store, training
from invkit.dci import synthetic
from invkit.inverters import load_inverter
from invkit.minutes import PLAN
from invkit.training import Progress
from recipes import cards, dci, table
from recipes.minutes import RecipeBudget

ROOT = Path(__file__).parents[2]
FOLDERS = {f"divide-{k:02d}" for k in range(1, 9)} | {"synchronise"}


@pytest.fixture
def process_time(monkeypatch):
    """Minutes of this process's own work, so that what else the machine does is not measured."""
    monkeypatch.setattr(time, "monotonic", time.process_time)


@pytest.fixture
def own_time(monkeypatch):
    """A clock that only training steps (0.2 s), synthetic images (5 ms) and images in error feedback (20 ms) move."""
    now = [0.0]

    def moves(seconds_of):
        def wrap(function):
            def moved(*arguments, **named):
                now[0] += seconds_of(*arguments)
                return function(*arguments, **named)

            return moved

        return wrap

    def look():
        now[0] += 1e-6
        return now[0]

    monkeypatch.setattr(time, "monotonic", look)
    monkeypatch.setattr(training, "_one_step", moves(lambda *_: 0.2)(training._one_step))
    monkeypatch.setattr(synthetic, "dead_leaves", moves(lambda n, *_: 0.005 * n)(synthetic.dead_leaves))
    monkeypatch.setattr(dci, "add_feedback", moves(lambda _, images, *__: 0.02 * len(images))(dci.add_feedback))


def test_it_is_written_early_once_by_a_phase_that_trains_the_whole(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    kept = []
    budget = RecipeBudget(
        1, {"coarse": 1, "regression": 1}, tmp_path, keep=kept.append, early=lambda progress: progress.step
    )
    for seconds, phase, step in [(0, "coarse", 1), (25, "coarse", 99), (26, "regression", 1), (27, "regression", 6),
                                 (50, "regression", 90)]:  # fmt: skip
        now[0] = seconds
        budget.after_step(Progress(tmp_path / phase, step, 100, torch.zeros(8, 3), None, {}, "no"))
    assert kept == [6]
    assert budget.pace("cpu")["phases"]["coarse"] == {
        "steps": 99, "minutes": 0.417, "precision": "no", "steps_per_second": 3.92, "images_per_second": 31.4
    }  # fmt: skip


def test_an_inverter_is_trained_in_time_and_written_twice(tmp_path, monkeypatch, own_time):
    saves = []
    save = store.save
    began = time.monotonic()

    def noted(folder, tensors, card, **settings):
        saves.append((card.get("early", False), time.monotonic() - began))
        return save(folder, tensors, card, **settings)

    monkeypatch.setattr(store, "save", noted)
    monkeypatch.setattr(cards, "SYNTHETIC", 4)  # images that the figures on the card are of
    card = table.train_recipe("dci-tiny-standard", tmp_path, device="cpu", minutes=0.2)
    pace = json.loads((tmp_path / "pace.json").read_text())
    assert 0.1 < pace["minutes_taken"] < 0.3  # of 12 seconds, a second or two is measuring
    assert set(pace["phases"]) == FOLDERS and pace["device"].startswith("CPU")
    last = pace["phases"]["synchronise"]
    assert last["images_per_second"] == pytest.approx(24 * last["steps_per_second"], rel=0.05)
    assert [early for early, _ in saves] == [True, False] and saves[0][1] > 0.2 / 3 * 60
    assert card["minutes"] == 0.2 and "--minutes 0.2" in card["command"] and "early" not in card
    inverter = load_inverter(tmp_path)
    assert inverter.depths == list(range(1, 9))
    run = json.loads((tmp_path / "training" / PLAN).read_text())
    assert run["leaves of seed 0"] >= 16


def test_what_is_written_early_can_be_used_when_the_training_is_killed(tmp_path, monkeypatch, process_time):
    """Here it ends by an error in the step after; a folder of the same kind stays behind after kill -9."""

    class Killed(Exception):
        pass

    after_step = RecipeBudget.after_step

    def killed(self, progress):
        if self.kept_early:
            raise Killed
        after_step(self, progress)

    monkeypatch.setattr(RecipeBudget, "after_step", killed)
    with pytest.raises(Killed):
        table.train_recipe("ffi-glyphs-standard", tmp_path, device="cpu", minutes=0.05)
    inverter = load_inverter(tmp_path)
    assert inverter.card["early"] and inverter.card["data"] == "glyphs" and inverter.card["name"]
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = inverter.reconstruct(images)
    assert found.shape == (2, 3, 32, 32) and found.isfinite().all() and 0 <= found.min() and found.max() <= 1


@pytest.mark.parametrize("name", sorted(name for name, recipe in table.RECIPES.items() if recipe.shares))
def test_shares_are_those_of_all_phases(name):
    shares = table.RECIPES[name].shares
    assert sum(shares.values()) == pytest.approx(1)
    if name.startswith("ffi-"):
        assert set(shares) <= {"coarse", "regression", "adversary"}
    elif name in ("dci-resnet50-thin", "dci-squeezenet"):  # whose inverses are trained at once
        assert set(shares) == {"divide", "synchronise"}
    else:
        assert {folder for folder in shares if folder.startswith("divide")} == set(dci.chain_shares(len(shares) - (
            3 if name == "dci-lite0" else 1), 1, 1)) - {"synchronise"}  # fmt: skip


def test_recipes_without_shares_are_not_trained_by_the_clock(tmp_path):
    with pytest.raises(ValueError, match="glyphs-plain-0 cannot be trained for a number of minutes; these can: dci"):
        table.train_recipe("glyphs-plain-0", tmp_path, minutes=1)
    with pytest.raises(ValueError, match="no device 'tpu' here"):
        table.train_recipe("dci-lite0", tmp_path, device="tpu")


def test_convolutions_in_low_precision_take_any_input():
    classifier = dci.load_classifier("tiny-standard")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    exact = classifier.logits(images)
    assert dci.low_precision(classifier) is classifier  # on a CPU
    coarse = dci.to_bfloat16(classifier).logits(images)
    assert coarse.dtype == torch.bfloat16 and 0 < (coarse.float() - exact).abs().max() < 0.3


# ---- what a training needs of its surroundings -----------------------------------------------------------------------

NEEDED = ("torch", "torchvision", "timm", "safetensors", "accelerate", "torchmetrics", "numpy", "tqdm", "matplotlib")


def requirements(names):
    """These packages and all that they cannot do without."""
    found, waiting = {}, list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for line in found[name].requires or []:
            if "extra ==" not in line:
                waiting.append(re.match(r"[\w.-]+", line)[0])
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder of packages that holds those and no others."""
    folder = tmp_path_factory.mktemp("site")
    for distribution in requirements(NEEDED).values():
        for file in distribution.files or []:
            top = file.parts[0]
            source = Path(distribution.locate_file(top))
            if top not in ("..", "__pycache__") and source.exists() and not (folder / top).exists():
                (folder / top).symlink_to(source)
    return folder


def run_bare(bare, *arguments, **variables):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "INVKIT"))}
    environment |= {"PYTHONPATH": f"{bare}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"} | variables
    # -S leaves the environment's own packages out
    return subprocess.run(
        [sys.executable, "-S", *arguments], env=environment, capture_output=True, text=True, timeout=500
    )


def test_a_training_starts_where_little_else_is_installed(bare, tmp_path):
    """A few steps of every phase, of both kinds, without SciPy, pandas, TensorBoard, foolbox and the like."""
    gone = run_bare(bare, "-c", "import scipy")
    assert gone.returncode and "No module named 'scipy'" in gone.stderr
    train = """import sys; from recipes import cards; from recipes.__main__ import main
cards.HELD_OUT, cards.SYNTHETIC = 20, 4  # images that the figures on the card are of
for name in sys.argv[2:]:
    main(["train", name, "--minutes", "0.03", "--device", "cpu", "--folder", f"{sys.argv[1]}/{name}"])"""
    names = "dci-tiny-standard", "ffi-glyphs-standard"
    done = run_bare(bare, "-c", train, str(tmp_path), *names)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in names:
        load_inverter(tmp_path / name)


def test_lite0_comes_from_a_folder_where_there_is_no_wheel(bare, tmp_path):
    from invkit.network import lite0

    code = "import invkit; print(invkit.load_classifier('lite0').classes)"
    assert "pip install" in run_bare(bare, "-c", code).stderr
    file = Path(store.wheel_file(lite0.WHEEL, lite0.FILE, lite0.SHA256))
    (tmp_path / file.name).symlink_to(file)
    done = run_bare(bare, "-c", code, INVKIT_LITE0=str(tmp_path))
    assert done.stdout.strip() == "1000", done.stderr[-2000:]
