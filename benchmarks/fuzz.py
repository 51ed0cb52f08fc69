"""Files that were changed at random, read as a user's would be: weights, cards, images, profiles, checkpoints.

    python benchmarks/fuzz.py [--times 2000] [--kinds weights card image profile checkpoint]

Each reading has to end in a right result or in one sentence. What ends otherwise is printed with its number, by which
`--first` tries it again. The last line is the largest memory that the process has held; it exits with 1 where that is
more than 2 GB, or anything ended otherwise.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from invkit import checkpoint, store
from invkit.data.photos import read_photo
from invkit.network.classifiers import load_classifier
from study.notebook import StudyError
from study.profiles import parameters

ROOT = Path(__file__).resolve().parents[1]
SENTENCES = (ValueError, TypeError, OSError, ImportError, StudyError)  # what the command lines print as one
NETWORK = "glyphs-plain-0"
MOST_MEMORY = 2  # GB, of a process that has read all of them
TOKENS = [b"-1", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'"x"', b"99999999999", b"../", b"\xff",
          b"!!python/", b"&a [*a]", b"[" * 3000, b":", b"\n"]  # fmt: skip


def mutated(content: bytes, random: np.random.Generator) -> bytes:
    """The content with one to four changes: a flipped bit, a piece cut out or doubled, an odd word, an early end."""
    for _ in range(random.integers(1, 5)):
        if not content:
            return content
        start = int(random.integers(len(content)))
        if random.random() < 0.5:
            start %= min(len(content), 2048)  # headers are where it hurts
        end = min(len(content), start + int(random.integers(1, 40)))
        change = random.integers(6)
        if change == 0:
            content = content[:start] + bytes([content[start] ^ 1 << int(random.integers(8))]) + content[start + 1 :]
        elif change == 1:
            content = content[:start] + content[end:]
        elif change == 2:
            content = content[:end] + content[start:]
        elif change == 3:
            content = content[:start] + random.bytes(end - start) + content[end:]
        elif change == 4:
            content = content[:start] + TOKENS[random.integers(len(TOKENS))] + content[end:]
        elif random.random() < 0.3:
            content = content[:start]
    return content


class Fuzz:
    """In a folder of its own: `weights(random)`, `card(random)`, … each reads one changed file."""

    def __init__(self, folder: Path):
        self.folder = folder
        shutil.copytree(store.find(NETWORK), folder / "network")
        self.of_weights = (folder / "network" / store.MODEL).read_bytes()
        self.of_card = (folder / "network" / store.CARD).read_bytes()
        self.images = [self._image(ending) for ending in ("png", "jpg", "webp", "tif", "gif", "bmp")]
        (folder / "notebooks").mkdir()
        (folder / "profiles").mkdir()
        shutil.copy(ROOT / "notebooks" / "01_classifiers.ipynb", folder / "notebooks")
        self.of_profile = b"01_classifiers:\n  n: 20\n  seed: 3\n"
        run = {"step": 3, "steps": 9, "seconds": 1.0, "settings": {"seed": 0}, "precision": "no", "history": []}
        self.tensors = {"a/weights/w": torch.arange(6.0)}
        checkpoint.write(folder / "run", self.tensors, run)
        self.of_checkpoint = (folder / "run" / checkpoint.CHECKPOINT).read_bytes()

    def _image(self, ending: str) -> tuple[str, bytes]:
        path = self.folder / f"photo.{ending}"
        levels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(levels).save(path)
        return path.name, path.read_bytes()

    def weights(self, random: np.random.Generator) -> None:
        """Half of the time with a card whose hash fits."""
        content = mutated(self.of_weights, random)
        card = json.loads(self.of_card)
        if random.random() < 0.5:
            (self.folder / "new").write_bytes(content)
            card["sha256"] = store.file_hash(self.folder / "new")
        (self.folder / "network" / store.MODEL).write_bytes(content)
        (self.folder / "network" / store.CARD).write_text(json.dumps(card))
        assert load_classifier(self.folder / "network").classes == 100

    def card(self, random: np.random.Generator) -> None:
        (self.folder / "network" / store.MODEL).write_bytes(self.of_weights)
        (self.folder / "network" / store.CARD).write_bytes(mutated(self.of_card, random))
        assert load_classifier(self.folder / "network").classes == 100

    def image(self, random: np.random.Generator) -> None:
        name, content = self.images[random.integers(len(self.images))]
        (self.folder / name).write_bytes(mutated(content, random))
        photo = read_photo(self.folder / name)
        assert photo.dim() == 3 and photo.isfinite().all() and 0 <= photo.min() and photo.max() <= 1

    def profile(self, random: np.random.Generator) -> None:
        (self.folder / "profiles" / "changed.yaml").write_bytes(mutated(self.of_profile, random))
        here = Path.cwd()
        os.chdir(self.folder)
        try:
            assert isinstance(parameters("01_classifiers", "changed"), dict)
        finally:
            os.chdir(here)

    def checkpoint(self, random: np.random.Generator) -> None:
        """No change may pass unseen: the tensors are those that were written."""
        (self.folder / "run" / checkpoint.CHECKPOINT).write_bytes(mutated(self.of_checkpoint, random))
        tensors, run = checkpoint.newest(self.folder / "run")
        assert torch.equal(tensors["a/weights/w"], self.tensors["a/weights/w"]) and run["step"] == 3


KINDS = ("weights", "card", "image", "profile", "checkpoint")


def memory() -> float:
    """The largest memory that this process has held, in GB."""
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def tried(read: Callable[[np.random.Generator], None], number: int) -> str:
    """How one reading ended: "right", "sentence", or what it was instead."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(np.random.default_rng(number))
    except SENTENCES as error:
        return "sentence" if len(str(error).strip().splitlines()) == 1 else f"{type(error).__name__}: {error!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]!r}"
    return "right"


def fuzz(kinds: tuple[str, ...], times: int, first: int = 0) -> dict[str, Counter]:
    """{kind: how often each end was reached}; an end that is neither right nor a sentence has the number with it."""
    ends = {}
    with tempfile.TemporaryDirectory() as folder:
        reader = Fuzz(Path(folder))
        for kind in kinds:
            ends[kind] = Counter()
            for number in range(first, first + times):
                end = tried(getattr(reader, kind), number)
                ends[kind][end if end in ("right", "sentence") else f"{number}: {end}"] += 1
    return ends


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    others = 0
    for kind, ends in fuzz(tuple(options.kinds), options.times, options.first).items():
        print(f"{kind}: {ends.pop('right', 0)} right, {ends.pop('sentence', 0)} sentences, {ends.total()} others")
        others += ends.total()
        for end in ends:
            print(f"  {end}")
    print(f"{memory():.1f} GB at most")
    sys.exit(others > 0 or memory() > MOST_MEMORY)
