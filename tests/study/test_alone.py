"""One process at a time: who comes second is told so, and a lock ends with the process that held it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from study import alone

ROOT = Path(__file__).parents[2]
RUFF = Path(sys.executable).with_name("ruff")
MODULE = "import sys\nprint(sys.argv, flush=True)\nsys.stdin.read()\nsys.exit(3)\n"


@pytest.fixture
def command(tmp_path, monkeypatch):
    """How a module is run alone that prints its arguments, waits until its input ends, and exits with 3."""
    (tmp_path / "waiting.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return [sys.executable, "-m", "study.alone", str(tmp_path / "one.lock"), "Another is at it.", "waiting", "-x", "y"]


def test_a_module_runs_as_if_called_and_a_killed_one_leaves_no_lock(command):
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline().endswith("waiting.py', '-x', 'y']\n")
    second = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    said = f"Another is at it. Its lock is {command[3]}.\n"
    assert (second.returncode, second.stdout, second.stderr) == (1, "", said)
    first.kill()
    first.communicate()
    assert subprocess.run(command, stdin=subprocess.DEVNULL).returncode == 3


def test_a_lock_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(sys, "argv", ["alone", str(tmp_path / "file/one.lock"), "Another is at it.", "waiting"])
    with pytest.raises(SystemExit, match="one.lock cannot be written .*: copy the repository to a folder of your own"):
        alone.main()


def test_a_second_make_is_told_of_the_first(tmp_path):
    (tmp_path / "build").mkdir()
    make = ["make", "-f", str(ROOT / "Makefile"), "-o", ".venv/installed", f"BIN={Path(sys.executable).parent}"]
    with FileLock(tmp_path / "build/quick.lock"):
        made = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 2
    said = "Another make is building the profile quick; wait for it to end. Its lock is build/quick.lock.\n"
    assert made.stderr.startswith(said)


def test_no_command_or_module_is_needed_that_macos_lacks():
    """`flock` is a command of Linux alone, and of what a processor or a disk is said, /proc."""
    sources = [ROOT / "Makefile", ROOT / "Snakefile"]
    sources += [path for name in ("invkit", "recipes", "study") for path in (ROOT / name).rglob("*.py")]
    named = re.compile(r"\bflock --|\bfcntl\.flock\b|sched_getaffinity|[\"']/proc/|\breadlink -f|\bnproc\b")
    assert not [path.name for path in sources if named.search(path.read_text(encoding="utf-8"))]


def test_no_two_files_differ_in_their_case_alone():
    """On the disks of most Macs one would replace the other."""
    folders = [
        ROOT / name for name in ("book", "invkit", "notebooks", "profiles", "recipes", "study", "tests", "weights")
    ]
    paths = [str(path.relative_to(ROOT)) for folder in folders for path in folder.rglob("*")]
    assert len({path.lower() for path in paths}) == len(paths) > 300


def test_what_is_to_be_made_is_not_taken_for_a_setting():
    """Snakemake's --config takes all words up to the next option."""
    make = ["make", "-n", "-o", ".venv/installed", "notebook", "NAME=01_classifiers", "SNAKEMAKE_OPTIONS=--config a=1"]
    printed = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(r" --[a-z]+ build/quick/executed/01_classifiers\.ipynb$", printed, re.MULTILINE)


def test_without_git_too_nothing_that_was_built_is_linted(tmp_path):
    (tmp_path / "build/quick/executed").mkdir(parents=True)
    (tmp_path / "build/quick/executed/made.py").write_text("import os, sys\n")
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    linted = subprocess.run([RUFF, "check"], cwd=tmp_path, capture_output=True, text=True)
    assert linted.returncode == 0
