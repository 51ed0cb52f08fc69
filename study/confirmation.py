"""Confirmation photos: looked at as rarely as possible, and every look is counted where version control sees it.

A chapter looks at them where it asks for them by name; whoever takes a whole set takes them uncounted.

A hash of their names parts the photos of a set. *Development* photos may be looked at freely while methods are chosen.
*Confirmation* photos are closed. One command opens them for one run of a chapter, and says why:

    python -m study.confirmation "the inverter of lite0 was trained again"

It adds an opening to book/confirmation.yaml, which the run then uses up. The chapter prints how often the photos have
been looked at. A look counts whether or not its results are kept.
"""

import datetime
import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import yaml

from invkit.data import Data
from study.notebook import StudyError, write_text

FILE = Path(__file__).parents[1] / "book/confirmation.yaml"
PARTS = ("", "development", "confirmation")
HEADER = "# How often the confirmation photos were looked at; study/confirmation.py says more and writes this file.\n"


def part_of(name: str) -> str:
    """The part, "development" or "confirmation", that a photo's name decides, as `Data` has it: without its ending."""
    return PARTS[1 + hashlib.sha256(Path(name).name.encode()).digest()[0] % 2]


def only_part(photos: Data, part: str, file: Path = FILE) -> Data:
    """The photos of one part; "" for all. Taking confirmation photos uses up an opening.

    Raises:
        StudyError: there is no such part, it has no photo, or the confirmation photos are closed.
    """
    if part not in PARTS:
        raise StudyError(f"part is {' or '.join(map(repr, PARTS))}, not {part!r}.")
    if not part:
        return photos
    rows = [row for row, name in enumerate(photos.names) if part_of(name) == part]
    if not rows:
        raise StudyError(f'None of the {len(photos)} photos is a {part} photo: give more, or part="".')
    if part == "confirmation":
        _look(file)
    return replace(
        photos, images=photos.images[rows], labels=photos.labels[rows], names=tuple(photos.names[row] for row in rows)
    )


def looks(file: Path = FILE) -> int:
    """How often the confirmation photos have been looked at, the looks before they were closed among them."""
    kept = _kept(file)
    return kept["before"] + sum(opening["looked"] for opening in kept["openings"])


def part_words(part: str, file: Path = FILE) -> str:
    """A sentence on which photos of the set a page shows."""
    if part != "confirmation":
        half = "They are the development half of the set, and may" if part else "They may"
        return f"{half} have been looked at while the method was chosen."
    before = _kept(file)["before"]
    return (
        f"They are the confirmation half of the set, which has been looked at {looks(file)} times, this one included. "
        f"{before} of these looks were at the whole set, before it was parted."
    )


def open_once(why: str, file: Path = FILE) -> None:
    """Open the confirmation photos for one run of a chapter.

    Raises StudyError where no reason is given, or an earlier opening has not been used.
    """
    if not why.strip():
        raise StudyError('Say why the confirmation photos are opened: python -m study.confirmation "why".')
    kept = _kept(file)
    if any(not opening["looked"] for opening in kept["openings"]):
        raise StudyError("The confirmation photos are open already: run the chapter that takes them.")
    kept["openings"].append({"date": datetime.date.today().isoformat(), "why": why.strip(), "looked": False})
    _write(kept, file)


def _kept(file: Path) -> dict:
    """What the file says; StudyError where it is missing or was damaged, since looks must not be forgotten."""
    try:
        kept = yaml.safe_load(file.read_text(encoding="utf-8"))
        if kept["before"] >= 0 and all(isinstance(opening["looked"], bool) for opening in kept["openings"]):
            return kept
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        pass
    raise StudyError(f"{file} does not say how often the photos were looked at: `git checkout {file}` brings it back.")


def _look(file: Path) -> None:
    kept = _kept(file)
    unused = [opening for opening in kept["openings"] if not opening["looked"]]
    if not unused:
        raise StudyError(
            'The confirmation photos are closed: python -m study.confirmation "why" opens them for one run, '
            'and part="development" does without them.'
        )
    unused[0]["looked"] = True
    _write(kept, file)


def _write(kept: dict, file: Path) -> None:
    write_text(file, HEADER + yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))


def main(arguments: list[str]) -> int:
    """Open the photos, and say how often they have been looked at."""
    try:
        open_once(" ".join(arguments))
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"The confirmation photos are open for one run. They have been looked at {looks()} times. Commit {FILE.name}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
