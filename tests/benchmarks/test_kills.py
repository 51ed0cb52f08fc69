"""Runs that are killed at random: what goes on to the same end has survived, what begins again or adds has not."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from invkit.store import whole

ROOT = Path(__file__).parents[2]
SPECIFICATION = importlib.util.spec_from_file_location("kills", ROOT / "benchmarks" / "kills.py")
kills = importlib.util.module_from_spec(SPECIFICATION)
SPECIFICATION.loader.exec_module(kills)


def counts(place):
    """To 40, from where it was."""
    done = place / "done"
    for number in range(int(done.read_text()) if done.exists() else 0, 40):
        sum(range(200_000))
        with whole(done) as file:
            file.write_text(f"{number + 1}")


def adds(place):
    with open(place / "done", "a") as file:
        for _ in range(40):
            sum(range(200_000))
            print("step", file=file, flush=True)


def kind(function):
    made = lambda place: {"done": (place / "done").read_bytes()}  # noqa: E731
    return kills.Kind("some", lambda place: None, lambda place: kills.Forked(function, place), made)


def test_what_goes_on_to_the_same_end_has_survived(tmp_path):
    assert kills.tried(kind(counts), 6, tmp_path) == 6


def test_what_does_not_is_counted_and_shown(tmp_path, capsys):
    assert kills.tried(kind(adds), 4, tmp_path) == 0
    assert "Not survived: some" in capsys.readouterr().err


def test_trainings_end_with_the_weights_of_an_undisturbed_one():
    """In a process of its own, as autograd does not fork once it has been used."""
    short = "import kills; kills.STEPS = 20; kills.main()"
    command = [sys.executable, "-c", short, "--kinds", "inverter", "robust", "--times", "2", "--strict"]
    place = Path(kills.__file__).parent
    tried = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": f"{place}:{ROOT}"})
    assert tried.returncode == 0, tried.stdout + tried.stderr


def test_rows_of_the_table_are_replaced_one_by_one_and_keep_their_order(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{kills.BEGIN}\n{kills.END}\nafter <!-- end -->\n")
    for name, row in (("book", "20 | 19"), ("inverter", "20 | 20"), ("book", "20 | 20")):
        title = kills.KINDS[name].name
        kills.put_row(page, title, f"| {title} | {row} |")
    lines = page.read_text().splitlines()
    assert [line for line in lines if line.startswith("| ")] == [
        kills.HEAD[0],
        f"| {kills.KINDS['inverter'].name} | 20 | 20 |",
        f"| {kills.KINDS['book'].name} | 20 | 20 |",
    ]
    assert lines[0] == "before" and lines[-1] == "after <!-- end -->"
