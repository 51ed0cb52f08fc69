"""Any machine: names with umlauts, no git, no home, a locale that is not UTF-8; several workers; Ctrl-C."""

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers import small_study

ROOT = Path(__file__).parents[2]
PATIENCE = 300  # seconds for a process on a busy machine
RUN = [sys.executable, "-m", "study.book", "run", "one"]


def command(place, *words, **environment):
    """What a command prints that has nothing of this machine's environment but the packages."""
    bare = {"PATH": os.fspath(place / "no programs"), "PYTHONPATH": os.fspath(ROOT), "OMP_NUM_THREADS": "1"}
    given = {"cwd": place, "env": bare | environment, "capture_output": True, "timeout": PATIENCE}
    done = subprocess.run([sys.executable, "-m", *words], **given)
    assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr.decode(errors="replace")
    return done.stdout.decode(errors="replace")


def test_a_notebook_runs_in_any_folder_without_git_a_home_and_utf_8(tmp_path):
    """The locale says ASCII, and neither Python nor `make` is asked to read files as UTF-8 all the same."""
    place, ascii_only = tmp_path / "Bücher – für alle", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    cells = "print('größer – ½')\nstudy.record('area', 2 * number, unit='m²', n=1)", "study.record_text('who', 'Änne')"
    small_study(place, one=cells)
    (place / "profiles/quick.yaml").write_text("one: {number: 3}  # größer\n", encoding="utf-8")

    command(place, "study.book", "run", "one", HOME=os.devnull, **ascii_only)
    executed = (place / "build/quick/executed/one.ipynb").read_text(encoding="utf-8")
    assert "größer – ½" in executed or r"gr\u00f6\u00dfer \u2013 \u00bd" in executed
    command(place, "study.book", "expect", **ascii_only)
    assert "All 2 results" in command(place, "study.book", "check", **ascii_only)
    expected = place / "profiles/quick.expected.json"
    expected.write_text(expected.read_text(encoding="utf-8").replace(r"\u00c4nne", "Ünne"), encoding="utf-8")
    done = subprocess.run([*RUN[:3], "check"], cwd=place, env=os.environ | ascii_only, capture_output=True, text=True)
    assert done.returncode == 1 and r"one: who is '\xc4nne', not '\xdcnne'." in done.stdout

    listed = command(place, "invkit", "list", HOME=os.devnull, **ascii_only)
    assert re.search(r"^dci-lite0 +1-18 ", listed, re.MULTILINE) and "classifiers: lite0, " in listed


def test_files_are_read_and_written_as_utf_8_whatever_the_locale():
    for path in [path for name in ("invkit", "recipes", "study") for path in (ROOT / name).rglob("*.py")]:
        for call in (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if type(node) is ast.Call):
            if isinstance(call.func, ast.Attribute) and call.func.attr in ("read_text", "write_text"):
                assert "encoding" in [word.arg for word in call.keywords], f"{path.name}, line {call.lineno}"


def waiting(place, text):
    """Wait until a notebook has said so, in a file of its folder."""
    began = time.monotonic()
    while not any(text in file.read_text() for file in place.glob("said*")):
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.05)


def start(place):
    return subprocess.Popen(RUN, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            start_new_session=True)  # fmt: skip


SAYS = "import time\nwith open('{place}/said', 'a') as file:\n    print('here', file=file)\ntime.sleep({seconds})"


@pytest.mark.parametrize("whom", ["the group", "one process"])
def test_ctrl_c_leaves_no_process_behind(tmp_path, whom):
    small_study(tmp_path, one=(SAYS.format(place=tmp_path, seconds=PATIENCE),))
    run = start(tmp_path)
    waiting(tmp_path, "here")
    processes = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
    assert len(processes) > 1
    (os.killpg if whom == "the group" else os.kill)(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 130 and said.endswith("Stopped by Ctrl-C; what had been finished stays.\n")
    assert "Traceback" not in said and not psutil.wait_procs(processes, timeout=20)[1]


def test_two_workers_on_one_folder_run_a_notebook_once(tmp_path):
    small_study(tmp_path, one=(SAYS.format(place=tmp_path, seconds=4), "study.record('double', 2 * number, n=1)"))
    first = start(tmp_path)
    waiting(tmp_path, "here")
    second = start(tmp_path)
    said = [run.communicate(timeout=PATIENCE)[0] for run in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0)
    assert "another process runs it" in said[1] and "the other process has run it" in said[1]
    assert (tmp_path / "said").read_text() == "here\n"
