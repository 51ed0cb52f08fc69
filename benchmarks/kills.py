"""`kill -9` at random moments: what is finished afterwards is what an undisturbed run makes, bit for bit.

    python benchmarks/kills.py [--kinds inverter robust notebook ...] [--times 20] [--table PAGE] [--strict]

An inverter of logits (two players), a robust classifier, a recipe under `accelerate launch`, one notebook, `make book`
and `make weights` are killed and called again, up to four times each, until as many kills as --times have hit a
running process. The moment is a random share of the processor time that an undisturbed run takes, so that a busy
machine changes nothing. Of a command, either all processes are killed, or a random one of them. With --table, the rows
of these kinds in that page, book/what_survives.md, are replaced.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import accelerate  # noqa: F401 (here, so that no child takes seconds to import it)
import numpy as np
import psutil
import timm.utils  # noqa: F401
import torch
import torch.utils.tensorboard  # noqa: F401
from torch import nn

from invkit import store
from invkit.ffi.invert import train_inverter
from invkit.network.classifiers import Classifier
from recipes.adversarial_training import train_classifier
from study.page_tables import replace_between

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers import small_study  # noqa: E402 (there may be another package called tests)

BEGIN, END = (f"<!-- made by benchmarks/kills.py: {end} -->" for end in ("begin", "end"))
INTRO = "Killed with `kill -9` at a random moment, as a whole or one process of it, and called again:"
HEAD = ["| killed with `kill -9` | times | survived |", "|---|---|---|"]
KILLS = 4  # of one run, at most
STEPS = 60  # of a training in a process of its own
PATIENCE = 600  # seconds for a process that another one, which was not killed, keeps waiting
REFUSED = ("Another make is building", "Another process trains in")
END_FILE = "end.safetensors"  # what a training ends with


# ---- processes -------------------------------------------------------------------------------------------------------


class Forked:
    """A function in a process of its own, which has imported all that this one has."""

    def __init__(self, function: Callable[[Path], None], place: Path):
        self.pid = os.fork()
        if self.pid == 0:
            said, code = open(place / "said.txt", "w"), 0  # noqa: SIM115 (as long as the process)
            os.dup2(said.fileno(), 2)
            torch.set_num_threads(1)
            try:
                function(place)
            except BaseException as error:
                print(f"Traceback: {error!r}", file=said, flush=True)
                code = 1
            os._exit(code)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def kill(self, random: np.random.Generator) -> None:
        os.kill(self.pid, signal.SIGKILL)


class Command:
    """A command in a folder, with all the processes that it starts."""

    def __init__(self, words: list[str], place: Path):
        threads = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
        with open(place / "said.txt", "w") as said:
            self.process = subprocess.Popen(
                words, cwd=place, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
                env=os.environ | threads,
            )  # fmt: skip
        self.pid = self.process.pid

    def poll(self) -> int | None:
        return self.process.poll()

    def kill(self, random: np.random.Generator) -> None:
        """All of the group, or one of all; the kernel of a notebook is no member of the group, and ends by itself."""
        if random.random() < 0.5:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        elif processes := tree(self.pid):
            with suppress(psutil.NoSuchProcess):
                processes[random.integers(len(processes))].kill()


def tree(pid: int) -> list[psutil.Process]:
    """A process and all that came of it."""
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def seconds_of(pid: int) -> float:
    """The processor time of a process, of its children, and of those that have ended."""
    total = 0.0
    for process in tree(pid):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def ended(run: Forked | Command) -> float:
    """Wait for the end; the processor time that it took, as last seen."""
    seconds = 0.0
    while run.poll() is None:
        seconds = max(seconds, seconds_of(run.pid))
        time.sleep(0.02)
    return seconds


# ---- what is killed --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """Something that runs, in a folder of its own.

    Attributes:
        name: of its row in the table.
        prepare: puts into a new folder what it needs.
        start: begins it, or goes on.
        made: what it has made, {name: content}; the same, bit for bit, however often it was killed.
        finished: {name: when it was written} of what it has finished and does not make again.
    """

    name: str
    prepare: Callable[[Path], None]
    start: Callable[[Path], Forked | Command]
    made: Callable[[Path], dict[str, bytes]]
    finished: Callable[[Path], dict[str, int]] = lambda place: {}


def tensors_made(place: Path) -> dict[str, bytes]:
    tensors, _ = store.read_tensors(place / END_FILE)
    return {name: store.content_hash([tensor]).encode() for name, tensor in tensors.items()}


def photos(n: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def invert_logits(place: Path) -> None:
    """A regression, then two players, as every inverter of logits is trained."""
    torch.manual_seed(0)
    classifier = Classifier(nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10)), "small", size=16)
    generator = {"channels": (16, 16, 8), "noise_dim": 12, "hidden": 16, "shared_dim": 16, "coarse": 4}
    inverter = train_inverter(
        classifier, photos(64, 16), steps=STEPS, batch=8, adversarial_share=0.5, generator=generator,
        discriminator={"channels": (8, 16)}, folder=place, progress=False,
    )  # fmt: skip
    assert inverter.card["failure"] is None
    store.write_tensors(place / END_FILE, inverter.generator.state_dict())


def robust_classifier(place: Path) -> None:
    def batches(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        images = photos(16, 32, step)
        return images, (images.mean((1, 2, 3)) > 0.5).long()

    classifier = train_classifier(
        "residual", batches, classes=2, size=32, steps=STEPS, options={"widths": [8, 8], "blocks": [1, 1]}, ema=0.9,
        epsilon=8 / 255, folder=place, progress=False, checkpoint_every_steps=4,
    )  # fmt: skip
    store.write_tensors(place / END_FILE, classifier.model.state_dict())


def make(*words: str) -> Callable[[Path], Command]:
    """How `make` is called in a small study, with the environment that runs this."""
    command = ["make", "-f", str(ROOT / "Makefile"), "-o", ".venv/installed", f"BIN={Path(sys.executable).parent}"]
    return lambda place: Command([*command, *words], place)


TRAINING = """
import torch
from invkit import store
from invkit.training import Player, train
torch.set_num_threads(1)
torch.manual_seed(0)
module = torch.nn.Sequential(torch.nn.Linear(3, 64), torch.nn.Dropout(0.1), torch.nn.Linear(64, 1))
player = Player('line', module, lambda module, batch, step: (module(batch).square().mean(), {}), 1e-2)
batch = lambda step: torch.ones(8, 3)
train(player, batch, steps=1000, folder=study.folder, checkpoint_every_steps=50, progress=False)
study.record_text('weights', store.content_hash(module.state_dict().values()))
"""
FOLLOWS = "study.record('sum', number + study.results_of('one')['double']['value'])"


def executed(place: Path, name: str) -> Path:
    return place / f"build/quick/executed/{name}.ipynb"


def results_made(*names: str) -> Callable[[Path], dict[str, bytes]]:
    return lambda place: {
        name: executed(place, name).with_name(f"{name}.results.json").read_bytes() for name in names
    }  # fmt: skip


def notebooks_finished(place: Path) -> dict[str, int]:
    """The first notebook is finished once the second has begun, the second once pages are made of it."""
    after = {"one": place / "build/quick/failed/two.lock", "two": place / "build/quick/src"}
    return {name: executed(place, name).stat().st_mtime_ns for name, begun in after.items()
            if begun.exists() and executed(place, name).exists()}  # fmt: skip


def book_made(place: Path) -> dict[str, bytes]:
    (place / "build/quick/html/two.html").stat()
    return results_made("one", "two")(place)


RECIPES = f"""# The recipes of the repository, with so few images to measure on that a rehearsal takes seconds.
__path__.append({str(ROOT / "recipes")!r})
from recipes import classifiers
classifiers.HELD_OUT = classifiers.VALIDATION = 16
"""


def small_recipes(place: Path) -> None:
    (place / "recipes").mkdir()
    (place / "recipes/__init__.py").write_text(RECIPES)
    small_study(place, one=("pass",))


def two_processes(place: Path) -> Command:
    """As recipes/imagenet.py says, on processors and with any free port."""
    launch = [str(Path(sys.executable).with_name("accelerate")), "launch", "--cpu", "--num_processes", "2"]
    train = ["-m", "recipes", "train", "glyphs-standard-2", "--folder", "trained", "--scale", "0.003"]
    return Command([*launch, "--main_process_port", "0", *train], place)


def weights_made(place: Path) -> dict[str, bytes]:
    folder = place / "build/weights-0.003/glyphs-standard-2"
    visible = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))  # no checkpoints
    return {store.MODEL: (folder / store.MODEL).read_bytes(), "names": " ".join(visible).encode()}


KINDS = {
    "inverter": Kind(
        "A logit inverter, of two players", lambda place: None, lambda place: Forked(invert_logits, place), tensors_made
    ),
    "robust": Kind(
        "A robust classifier", lambda place: None, lambda place: Forked(robust_classifier, place), tensors_made
    ),
    "two": Kind(
        "A recipe, in two processes of `accelerate launch`",
        small_recipes,
        two_processes,
        lambda place: {store.MODEL: (place / "trained" / store.MODEL).read_bytes()},
    ),
    "notebook": Kind(
        "One notebook, which trains a network",
        lambda place: small_study(place, one=(TRAINING,)),
        lambda place: Command([sys.executable, "-m", "study.book", "run", "one"], place),
        results_made("one"),
    ),
    "book": Kind(
        "`make book`, of two notebooks",
        lambda place: small_study(place, one=("study.record('double', 2 * number)",), two=(FOLLOWS,)),
        make("book"),
        book_made,
        notebooks_finished,
    ),
    "weights": Kind(
        "`make weights`, a rehearsal",
        small_recipes,
        make("weights", "SCALE=0.003", "NETWORKS=glyphs-standard-2"),
        weights_made,
    ),
}


# ---- kills -----------------------------------------------------------------------------------------------------------


def tried(kind: Kind, times: int, folder: Path) -> int:
    """How many of so many kills it survived: it then ended with what an undisturbed run made, as if called once."""
    undisturbed, random = folder / "undisturbed", np.random.default_rng(0)
    place = _new(undisturbed, kind)
    whole = ended(run := kind.start(place))
    assert run.poll() == 0, (place / "said.txt").read_text()
    expected, hits, survived = kind.made(place), 0, 0
    while hits < times:
        place = _new(folder / f"after-{hits}", kind)
        kills, finished = 0, {}
        while kills < min(KILLS, times - hits) and _killed(kind.start(place), random.uniform(0, whole), random):
            kills += 1
            finished = kind.finished(place) | finished
        survived += kills * _survived(kind, place, expected, finished)
        hits += kills
        shutil.rmtree(place)
    return survived


def _new(place: Path, kind: Kind) -> Path:
    place.mkdir(parents=True)
    kind.prepare(place)
    return place


def _killed(run: Forked | Command, moment: float, random: np.random.Generator) -> bool:
    """Kill a run after so many seconds of its processor time; False where it ended before."""
    while run.poll() is None:
        if seconds_of(run.pid) >= moment:
            run.kill(random)
            ended(run)
            return True
        time.sleep(0.02)
    return False


def _survived(kind: Kind, place: Path, expected: dict[str, bytes], finished: dict[str, int]) -> bool:
    """Whether the same call goes on to the same end, with no traceback, and leaves alone what was finished.

    Where a process that was not killed is still at it, the call is refused in one sentence, and made again.
    """
    began = time.monotonic()
    while True:
        ended(run := kind.start(place))
        said = (place / "said.txt").read_text()
        if not any(words in said for words in REFUSED) or time.monotonic() - began > PATIENCE:
            break
        time.sleep(1)
    again, made = kind.finished(place), {}
    with suppress(OSError):  # something is missing
        made = kind.made(place)
    good = run.poll() == 0 and "Traceback" not in said and made == expected
    good = good and all(again.get(name) == when for name, when in finished.items())
    if not good:
        print(f"Not survived: {kind.name}\n{said}", file=sys.stderr)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--strict", action="store_true", help="exit with 1 where not everything survived")
    options = parser.parse_args()
    survived = {}
    for name in options.kinds:
        with tempfile.TemporaryDirectory() as folder:
            survived[name] = tried(KINDS[name], options.times, Path(folder))
        row = f"| {KINDS[name].name} | {options.times} | {survived[name]} |"
        print(row, flush=True)
        if options.table:
            put_row(options.table, KINDS[name].name, row)
    if options.strict and any(number < options.times for number in survived.values()):
        sys.exit("Not everything survived.")


def put_row(page: Path, name: str, row: str) -> None:
    """Put a row of the table into a page, in place of the one of the same name."""
    between = page.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    rows = {line.split("|")[1].strip(): line for line in between.splitlines() if line.startswith("| ")}
    rows[name] = row
    rows.pop(HEAD[0].split("|")[1].strip(), None)
    known = [rows[kind.name] for kind in KINDS.values() if kind.name in rows]
    made = "It is made by `python benchmarks/kills.py --table book/what_survives.md`, one kind after another."
    replace_between(page, BEGIN, END, [INTRO, "", *HEAD, *known, "", made])


if __name__ == "__main__":
    main()
