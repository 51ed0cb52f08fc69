"""The study from outside: what runs again, what a failure leaves, and a whole small book."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import write_notebook

from invkit import store
from study import book
from study.notebook import StudyError

ROOT = Path(__file__).parents[2]
FIRST = [
    ("markdown", "# One\n\nIt is {glue:text}`double`, and $x^2$."),
    ("code", "number = 2.0", "parameters"),
    ("code", "from study import notebook\nstudy = notebook.open('01_one')"),
    ("code", "import sys\nprint('wor' + 'king', file=sys.stderr)\nstudy.record('double', 2 * number, unit='m', n=1)"),
]
SECOND = [
    ("markdown", "# Two"),
    ("code", "note = ''", "parameters"),
    ("code", "from study import notebook\nstudy = notebook.open('02_two')"),
    ("code", "print('read', study.results_of('01_one')['double']['value'])"),
]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A study of two notebooks, the second reading the first's results; the working directory."""
    write_notebook(tmp_path / "notebooks/01_one.ipynb", FIRST)
    write_notebook(tmp_path / "notebooks/02_two.ipynb", SECOND)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/quick.yaml").write_text("01_one:\n  number: 4\n")
    (tmp_path / "profiles/published.yaml").write_text("")
    (tmp_path / "book").mkdir()
    (tmp_path / "book/intro.md").write_text("# Book\n\n{glue:text}`01_one.ipynb::double:s`\n")
    (tmp_path / "book/_toc.yml").write_text('format: jb-book\nroot: intro\nchapters:\n  - glob: "0*"\n')
    (tmp_path / "book/references.bib").write_text("")
    shutil.copy(ROOT / "_config.yml", tmp_path)
    monkeypatch.delenv("INVKIT_WEIGHTS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(name, cell, source):
    path = Path(f"notebooks/{name}.ipynb")
    notebook = json.loads(path.read_text())
    notebook["cells"][cell]["source"] = source
    path.write_text(json.dumps(notebook))


# ---- what runs again -------------------------------------------------------------------------------------------------


def prints():
    return [book.fingerprint(name, "quick") for name in book.notebooks()]


def test_prose_runs_nothing_again(small):
    before = prints()
    change("01_one", 0, "# Another title")
    assert prints() == before


def test_code_and_parameters_run_the_notebook_and_its_readers_again(small):
    first, second = prints()
    change("02_two", 3, "print(study.results_of('01_one'))")
    assert prints()[0] == first and prints()[1] != second
    first, second = prints()
    Path("profiles/quick.yaml").write_text("01_one:\n  number: 5\n")
    assert prints()[0] != first and prints()[1] != second


def test_only_modules_that_are_named_count(small, tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    for module, text in {"__init__": "", "metrics": "from . import store", "store": "A = 1", "plots": "B = 1"}.items():
        (package / f"{module}.py").write_text(text)
    monkeypatch.setattr(book.invkit, "__file__", str(package / "__init__.py"))
    change("02_two", 3, "invkit.metrics.psnr(study.results_of('01_one'))")
    before = prints()
    (package / "plots.py").write_text("B = 2")
    (package / "store.py").write_text('"""Words."""\n\nA = 1  # more words')
    assert prints() == before
    (package / "store.py").write_text("A = 2")
    assert prints()[0] == before[0] and prints()[1] != before[1]


def test_new_weights_run_their_reader_again(small):
    change("02_two", 1, "note = 'dci-small'")
    before = prints()
    for name in ("dci-small", "other"):
        Path("weights", name).mkdir(parents=True)
        Path("weights", name, "card.json").write_text("{}")
    assert prints()[0] == before[0] and prints()[1] != before[1]


@pytest.mark.parametrize("profile", ["quick", "published"])
def test_weights_trained_again_run_their_reader_again(small, monkeypatch, profile):
    change("02_two", 1, "note = 'dci-small'")
    for folder, sha256 in (("weights", "a"), ("same", "a"), ("other", "b")):
        card = Path(folder, "dci-small/card.json")
        card.parent.mkdir(parents=True)
        card.write_text(json.dumps({"sha256": sha256}))

    def prints():
        return [book.fingerprint(name, profile) for name in book.notebooks()]

    before = prints()
    monkeypatch.setenv("INVKIT_WEIGHTS", "same")
    assert prints() == before
    monkeypatch.setenv("INVKIT_WEIGHTS", "other")
    assert prints()[0] == before[0] and prints()[1] != before[1]


def test_the_study_looks_for_weights_where_the_library_does(monkeypatch):
    monkeypatch.delenv("INVKIT_WEIGHTS", raising=False)
    monkeypatch.chdir(ROOT)
    assert book.weights_folder(Path()).resolve() == store.weights_folder()
    monkeypatch.setenv("INVKIT_WEIGHTS", "build/weights")
    assert book.weights_folder(Path()) == store.weights_folder() == Path("build/weights")


@pytest.mark.parametrize(
    ("profile", "text", "sentence"),
    [
        ("quick", "01_one: {numer: 4}", "quick.yaml: 01_one has no parameter 'numer'"),
        ("quick", "01_one: {number: four}", "quick.yaml: 01_one takes number as float"),
        ("quick", "03_three: {}", "parameters for 03_three, which is not in notebooks/"),
        ("slow", None, "no profile 'slow'; there are published, quick"),
    ],
)
def test_a_wrong_profile_is_one_sentence(small, profile, text, sentence):
    if text:
        Path("profiles/quick.yaml").write_text(text)
    with pytest.raises(StudyError, match=sentence):
        book.fingerprint("01_one", profile)


# ---- whole studies ---------------------------------------------------------------------------------------------------


def test_a_notebook_that_raises_names_itself_and_leaves_its_copy(small):
    change("01_one", 3, "raise RuntimeError('the cat is out')")
    with pytest.raises(StudyError, match="01_one failed .*Error: the cat is out .*failed/01_one.ipynb"):
        book.run("01_one", "quick")
    assert "the cat is out" in Path("build/quick/failed/01_one.ipynb").read_text()
    assert not Path("build/quick/executed/01_one.ipynb").exists()


def test_two_notebooks_of_one_folder_run_at_the_same_time(small):
    for name in book.notebooks():  # they stay long enough for their kernels to meet
        change(name, 3, "import time\ntime.sleep(3)")
    command = [sys.executable, "-m", "study.book", "run"]
    runs = [subprocess.Popen([*command, name, "--profile", "quick"]) for name in book.notebooks()]
    assert [run.wait(timeout=90) for run in runs] == [0, 0]
    assert len(list(Path("build/quick/executed").glob("*.ipynb"))) == 2


def test_a_published_copy_is_taken_while_its_inputs_are_the_same(small, capsys):
    change("01_one", 3, "study.record('double', 2 * number)\nprint('ran')")
    book.run("01_one", "published")
    book.publish()
    shutil.rmtree("build")
    change("01_one", 0, "# Another title")
    book.run("01_one", "published")
    assert "unchanged since it was published" in capsys.readouterr().out
    assert json.loads(Path("build/published/executed/01_one.results.json").read_text())["double"]["value"] == 4
    change("01_one", 1, "number = 3.0")
    book.run("01_one", "published")
    assert json.loads(Path("build/published/executed/01_one.results.json").read_text())["double"]["value"] == 6


def draw():
    """The code of a cell that makes two figures: a chart, and noise in so many colours that a palette will not do."""
    return """import numpy
from matplotlib import pyplot
study.record('double', 2 * number)
for id in ('chart', 'noise'):
    figure, axes = pyplot.subplots()
    if id == 'chart':
        axes.plot([1, 2])
    else:
        axes.imshow(numpy.random.default_rng(0).random((200, 300, 3)))
    study.figure(id, figure)
"""


FIGURES = "# One\n\n{glue:text}`double`\n\n```{glue:figure} chart\n```\n\n```{glue:figure} noise\n```\n"


def test_a_fresh_clone_compiles_what_was_published(small, capsys, monkeypatch):
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel's own draws figures for notebooks
    change("01_one", 0, FIGURES)
    change("01_one", 3, draw())
    Path("book/intro.md").write_text("# Book\n\n![a chart](_static/01_one.chart.png)\n")
    for name in book.notebooks():
        book.run(name, "published")
    executed = sum(path.stat().st_size for path in Path("build/published/executed").iterdir())
    book.publish()
    stored = {path.name: path.stat().st_size for path in Path("book/published").iterdir()}
    results = {f"{name}.results.json" for name in book.notebooks()}
    assert set(stored) == {"01_one.ipynb", "02_two.ipynb", "01_one.chart.png"} | results
    assert sum(stored.values()) < executed / 2
    kinds = [kind for cell in json.loads(Path("book/published/01_one.ipynb").read_text())["cells"]
             for output in cell.get("outputs", []) for kind in output.get("data", {}) if "image" in kind]  # fmt: skip
    assert [kind.rpartition("/")[2] for kind in kinds] == ["png", "jpeg"]

    shutil.rmtree("build")
    capsys.readouterr()
    for name in book.notebooks():
        book.run(name, "published")
    assert capsys.readouterr().out.count("unchanged since it was published") == 2
    book.compile("published")
    pages = {page.stem: page.read_text() for page in Path("build/published/html").glob("*.html")}
    images = [
        Path("build/published/html", image) for image in re.findall(r'img[^>]* src="(_images/[^"]+)', pages["01_one"])
    ]
    assert sorted(image.suffix for image in images) == [".jpg", ".png"] and all(image.exists() for image in images)
    assert "_images/01_one.chart.png" in pages["intro"]


def executed_as_they_are():
    """Executed copies without any output, as book.run would leave them."""
    folder = Path("build/published/executed")
    folder.mkdir(parents=True)
    for name in book.notebooks():
        facts = {"invkit": {"fingerprint": book.fingerprint(name, "published")}}
        (folder / f"{name}.ipynb").write_text(json.dumps({"cells": [], "metadata": facts}))
        (folder / f"{name}.results.json").write_text("{}")


def test_too_much_is_not_published(small, monkeypatch):
    executed_as_they_are()
    monkeypatch.setattr(book, "MOST_PUBLISHED", 10)
    with pytest.raises(StudyError, match="would hold 0.0 MB, more than 0 MB: make fewer or smaller figures"):
        book.publish()
    assert not Path("book/published").exists()


def test_what_was_executed_before_a_change_is_not_published(small, capsys):
    executed_as_they_are()
    change("02_two", 3, "print('another')")
    book.publish()
    assert "02_two was not executed as it is now: its published copy is missing." in capsys.readouterr().out
    assert not Path("book/published/02_two.ipynb").exists() and Path("book/published/01_one.ipynb").exists()


def test_new_weights_unpublish_only_who_takes_them_as_a_parameter(small):
    def prints():
        return [book.fingerprint(name, "published") for name in book.notebooks()]

    Path("weights/dci-small").mkdir(parents=True)
    card = Path("weights/dci-small/card.json")
    card.write_text('{"sha256": "a"}')
    Path("profiles/published.yaml").write_text("02_two: {note: dci-small}")
    before = prints()
    card.write_text('{"sha256": "a", "words": "others"}')
    assert prints() == before
    card.write_text('{"sha256": "b"}')
    assert prints()[0] == before[0] and prints()[1] != before[1]


def test_what_is_published_here_fits_a_repository_and_is_stamped():
    stored = sorted((ROOT / "book/published").glob("*.ipynb"))
    if not stored:
        pytest.skip("nothing is published yet")
    assert sum(path.stat().st_size for path in stored[0].parent.iterdir()) <= book.MOST_PUBLISHED
    for path in stored:
        facts = json.loads(path.read_text())["metadata"]["invkit"]
        assert facts["profile"] == "published" and path.with_name(f"{path.stem}.results.json").exists()
        assert facts.keys() >= {"fingerprint", "date", "machine", "minutes", "version"}
        assert "Made with profile *published*" in path.read_text(), path.stem


def test_every_chapter_is_published_as_it_is_now(monkeypatch):
    """A stale one would make `make book PROFILE=published` run it, perhaps for hours, instead of compiling pages."""
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("INVKIT_WEIGHTS", raising=False)

    def current(name):
        stored = ROOT / f"book/published/{name}.ipynb"
        made = json.loads(stored.read_text())["metadata"]["invkit"]["fingerprint"] if stored.exists() else None
        return made == book.fingerprint(name, "published")

    stale = [name for name in book.notebooks() if not current(name)]
    assert not stale, f"{', '.join(stale)}: `make book PROFILE=published`, `make publish`, and commit book/published"


def test_snakemake_builds_the_book_and_repeats_only_what_changed(small):
    def make():
        command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--cores", "2"]
        subprocess.run([*command, "--rerun-triggers", "params", "input", "mtime", "code", "--quiet", "all"], check=True)
        return {path.stem: path.stat().st_mtime_ns for path in Path("build/quick/executed").glob("*.ipynb")}

    once = make()
    page = Path("build/quick/html/01_one.html").read_text()
    assert "8.00 m" in page and "8.00 m" in Path("build/quick/html/intro.html").read_text()
    assert "# Parameters" not in page and "working" not in page
    assert "https://" not in page and Path("build/quick/html/_static/mathjax.js").stat().st_size > 1e6
    assert "read 8.0" in Path("build/quick/html/02_two.html").read_text()
    executed = Path("build/quick/executed/01_one.ipynb").read_text()
    assert str(small) not in executed and json.loads(executed)["metadata"]["invkit"]["profile"] == "quick"

    change("01_one", 0, "# Another title")
    change("02_two", 3, "print('read again', study.results_of('01_one')['double']['value'])")
    twice = make()
    assert twice["01_one"] == once["01_one"] and twice["02_two"] > once["02_two"]
    assert "Another title" in Path("build/quick/html/01_one.html").read_text()
    assert "read again 8.0" in Path("build/quick/html/02_two.html").read_text()

    assert make() == twice


def test_weights_are_trained_after_those_that_they_need(small):
    names = ["dci-facegan", "ffi-glyphs-early", "glyphs-early-0", "glyphs-reader", "glyphs-robust-0"]
    for name in names:
        Path("weights", name).mkdir(parents=True)
        Path("weights", name, "card.json").write_text("{}")
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "-n", "--printshellcmds"]
    command += ["--config", "scale=0.5", "weights=build/again", "--cores", "2", "--", "weights"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    lines = [line for line in said.splitlines() if "-m recipes train" in line]
    assert all("INVKIT_WEIGHTS=build/again" in line and "--scale 0.5" in line for line in lines)
    order = [re.search(r"train (\S+) --folder build/again/\1 ", line)[1] for line in lines]
    # in the alphabet the early one and its inverter come first
    assert sorted(order) == sorted([*names, "glyphs-standard-0"])  # which is not shipped, but needed
    chain = ["glyphs-standard-0", "glyphs-robust-0", "glyphs-early-0", "ffi-glyphs-early"]
    assert [name for name in order if name in chain] == chain


def test_a_warning_of_sphinx_leaves_the_old_pages(small, capfd):
    for name in book.notebooks():
        Path("build/quick/executed").mkdir(parents=True, exist_ok=True)
        shutil.copy(f"notebooks/{name}.ipynb", "build/quick/executed")
    Path("build/quick/html").mkdir()
    Path("build/quick/html/old").touch()
    with pytest.raises(StudyError, match="no page was replaced"):  # nothing was glued
        book.compile("quick")
    assert "double" in capfd.readouterr().err and Path("build/quick/html/old").exists()
