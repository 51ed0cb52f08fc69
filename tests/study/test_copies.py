"""Damaged files of the study, and locks that others hold: whoever meets one says which it is and what to do.

Nothing else is lost then. No notebook is run here.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from helpers import write_notebook

from study import book, pages, published
from study.copies import read_copy, read_results, sealed
from study.fingerprint import fingerprint
from study.notebook import StudyError

RESULTS = {"double": {"value": 8.0, "tolerance": 0.4}}
HOLDS = "import filelock, sys\na = filelock.FileLock(sys.argv[1])\na.acquire()\nprint('held', flush=True)\ninput()"


def execute(name, profile):
    """Write what `book.run_notebook` would leave of a notebook."""
    folder = Path("build", profile, "executed")
    folder.mkdir(parents=True, exist_ok=True)
    notebook, text = json.loads(Path(f"notebooks/{name}.ipynb").read_text()), json.dumps(RESULTS)
    facts = {"fingerprint": fingerprint(name, profile), "profile": profile, "date": "2026-01-01", "version": "1"}
    notebook["metadata"]["invkit"] = facts
    (folder / f"{name}.results.json").write_text(text)
    (folder / f"{name}.ipynb").write_text(json.dumps(sealed(notebook, text), indent=1))


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A study of two notebooks, the second reading the first's results, executed in both profiles and published."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("INVKIT_WEIGHTS", raising=False)
    cells = [("markdown", "# Its title"), ("code", "number = 2.0", "parameters")]
    write_notebook(tmp_path / "notebooks/01_one.ipynb", [*cells, ("code", "print(number)")])
    write_notebook(tmp_path / "notebooks/02_two.ipynb", [*cells, ("code", "print('01_one')")])
    for folder in ("profiles", "book"):
        (tmp_path / folder).mkdir()
    for profile in ("quick", "published"):
        Path(f"profiles/{profile}.yaml").write_text("")
        execute("01_one", profile)
        execute("02_two", profile)
    book.publish()
    book.expect()
    return tmp_path


def files():
    return {path: path.read_bytes() for path in Path().rglob("*.*") if path.is_file() and path.suffix != ".lock"}


DAMAGES = {
    "cut short": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "no UTF-8": lambda content: b"\xff" + content,
    "something else": lambda content: b"[1, 2]\n",
    "one bit": lambda content: content.replace(b"8.0", b"9.0").replace(b"Its title", b"Its tidle"),
}
EXECUTED, OF_PUBLISHED = "build/quick/executed/01_one", "build/published/executed/01_one"
READERS = [
    ("compile", f"{EXECUTED}.ipynb"),
    ("check", f"{EXECUTED}.results.json"),
    ("check", f"{EXECUTED}.ipynb"),
    ("expect", f"{EXECUTED}.results.json"),
    ("publish", f"{OF_PUBLISHED}.ipynb"),
    ("publish", f"{OF_PUBLISHED}.results.json"),
    ("run 02_two", f"{EXECUTED}.results.json"),
    ("run 01_one --profile published", "book/published/01_one.ipynb"),
    ("run 01_one --profile published", "book/published/01_one.results.json"),
    ("compile --profile published", "book/published/01_one.ipynb"),
]


def said(command, monkeypatch):
    """The one sentence with which a command of `study.book` ends."""
    monkeypatch.setattr(sys, "argv", ["book", *command.split()])
    with pytest.raises(SystemExit) as stop:
        book.main()
    assert "\n" not in stop.value.code
    return stop.value.code


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("command", "path"), READERS)
def test_a_damaged_copy_or_results_file_is_one_sentence_and_all_else_stays(built, monkeypatch, command, path, damage):
    Path(path).write_bytes(DAMAGES[damage](Path(path).read_bytes()))
    before = files()
    sentence = said(command, monkeypatch)
    assert sentence.startswith(f"{path} is damaged")
    if path.startswith("book"):
        assert sentence.endswith(f": `git checkout {path}`, or another copy of the repository, brings it back.")
    else:
        again = "make notebook NAME=01_one PROFILE=quick" if "quick" in path else "make published"
        assert sentence.endswith(f": delete it, and `{again}` makes it again.")
    assert files() == before


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "one bit"])  # that is a number that differs
def test_damaged_expectations_are_one_sentence(built, monkeypatch, damage):
    path = Path("profiles/quick.expected.json")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert said("check", monkeypatch).startswith(f"{path} is damaged: `git checkout {path}`")


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "one bit"])  # of its prose, which may change
def test_a_damaged_chapter_is_one_sentence(built, monkeypatch, damage):
    path = Path("notebooks/01_one.ipynb")
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert said("run 01_one", monkeypatch).startswith(f"{path} is no notebook: `git checkout {path}`")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"nbformat": 5}, "has the format 5, not 4"),
        ({"nbformat": 3, "worksheets": [], "cells": []}, "has the format 3, not 4"),
        ({"cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]}}]}, "is no notebook: `git checkout"),
        ({"cells": [None]}, "is no notebook: `git checkout"),
    ],
)
def test_a_chapter_of_another_format_is_one_sentence(built, monkeypatch, change, sentence):
    path = Path("notebooks/01_one.ipynb")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert said("run 01_one", monkeypatch).startswith(f"{path} {sentence}")


def test_a_damaged_card_is_one_sentence(built, monkeypatch):
    card = Path("weights/lite/card.json")
    card.parent.mkdir(parents=True)
    card.write_text('{"sha256')
    write_notebook(built / "notebooks/01_one.ipynb", [("code", "number = 'lite'", "parameters")])
    assert said("run 01_one", monkeypatch) == f"{card} is damaged: fetch or train it again."


def test_missing_results_are_one_sentence(built, monkeypatch):
    Path(f"{EXECUTED}.results.json").unlink()
    assert said("expect", monkeypatch).startswith(f"{EXECUTED}.results.json is missing: ")


def test_a_damaged_figure_is_not_published(built, monkeypatch):
    Path("book/intro.md").write_text("![a chart](_static/01_one.chart.png)")
    Path(f"{OF_PUBLISHED}.chart.png").write_bytes(b"\x89PNG")
    sentence = said("publish", monkeypatch)
    assert sentence.startswith(f"{OF_PUBLISHED}.chart.png is damaged: delete {OF_PUBLISHED}.ipynb, and ")


def test_copies_of_before_there_were_hashes_are_read(built):
    path = Path(f"{EXECUTED}.ipynb")
    notebook = json.loads(path.read_text())
    for key in ("sha256", "results_sha256"):
        del notebook["metadata"]["invkit"][key]
    path.write_text(json.dumps(notebook))
    assert read_copy(path) == notebook and read_results(Path(f"{EXECUTED}.results.json"))[1] == RESULTS
    assert pages.executed_copy("01_one", "quick") == path


def test_a_copy_that_is_only_laid_out_otherwise_is_the_same(built):
    path = Path("book/published/01_one.ipynb")
    notebook = json.loads(path.read_text())
    for cell in notebook["cells"]:
        cell["source"] = [cell["source"]]
    path.write_text(json.dumps(notebook))
    assert read_copy(path) == notebook


def test_a_full_disk_while_publishing_loses_no_copy(built, monkeypatch):
    whole, before = published.whole, files()

    def full(path):
        if path.name.startswith("02"):
            raise OSError(28, "No space left on device", str(path))
        return whole(path)

    monkeypatch.setattr(published, "whole", full)
    assert said("publish", monkeypatch) == "book/published/02_two.ipynb: No space left on device."
    assert files() == before


def test_ctrl_c_is_one_sentence(built, monkeypatch, capsys):
    def stopped():
        raise KeyboardInterrupt

    monkeypatch.setitem(book.COMMANDS, "check", stopped)
    monkeypatch.setattr(sys, "argv", ["book", "check"])
    with pytest.raises(SystemExit) as stop:
        book.main()
    assert stop.value.code == 130
    assert capsys.readouterr().err == "Stopped by Ctrl-C; what had been finished stays.\n"


# ---- locks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def lock(built):
    """The lock of a notebook that another process runs."""
    path = Path("build/quick/failed/01_one.lock")
    path.parent.mkdir()
    return path


def test_who_waits_for_a_notebook_says_so_and_gives_up(lock, monkeypatch, capsys):
    monkeypatch.setattr(book, "LONGEST_WAIT", 0.01)
    with FileLock(lock):
        sentence = said("run 01_one", monkeypatch)
    assert sentence.startswith(f"Another process has held {lock} for ") and sentence.endswith("then run it again.")
    assert f"another process runs it, and holds {lock}; waiting for that to end" in capsys.readouterr().out


@pytest.mark.parametrize("finished", [True, False])
def test_a_killed_one_is_noticed_and_what_it_had_finished_is_not_run_again(lock, monkeypatch, capsys, finished):
    import papermill

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    holder = subprocess.Popen([sys.executable, "-c", HOLDS, lock], **pipes)
    assert holder.stdout.readline() == "held\n"
    wait = book._wait

    def killed(*arguments):
        if finished:
            execute("01_one", "quick")
        holder.kill()
        holder.communicate()
        wait(*arguments)

    def runs(*arguments, **settings):
        raise StudyError("It runs.")

    monkeypatch.setattr(book, "_wait", killed)
    monkeypatch.setattr(papermill, "execute_notebook", runs)
    if finished:
        book.run_notebook("01_one", "quick")
        assert "the other process has run it" in capsys.readouterr().out
        FileLock(lock, timeout=0).acquire()  # it is free
    else:
        with pytest.raises(StudyError, match="It runs"):
            book.run_notebook("01_one", "quick")
