"""The study from outside: what runs again, what a failure leaves, and a whole small book."""

import ast
import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers import write_notebook

from study import book, pages, published
from study.fingerprint import fingerprint
from study.notebook import StudyError, default_parameters, injected_parameters, source_of
from study.outputs import without_progress
from study.profiles import notebooks, parameters, setting

ROOT = Path(__file__).parents[2]
FIRST = [
    ("markdown", "# One\n\nIt is {glue:text}`double`, and $x^2$."),
    ("code", "number = 2.0", "parameters"),
    ("code", "from study import notebook\nstudy = notebook.open('01_one')"),
    (
        "code",
        "import sys\nprint('wor' + 'king: 50%|', 'war' + 'ning', sep='\\n', file=sys.stderr)\n"
        "study.record('double', 2 * number, unit='m', n=1)",
    ),
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
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)  # where GitHub runs the tests
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(name, cell, source):
    path = Path(f"notebooks/{name}.ipynb")
    notebook = json.loads(path.read_text())
    notebook["cells"][cell]["source"] = source
    path.write_text(json.dumps(notebook))


# ---- what runs again -------------------------------------------------------------------------------------------------


def prints():
    return [fingerprint(name, "quick") for name in notebooks()]


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
        return [fingerprint(name, profile) for name in notebooks()]

    before = prints()
    monkeypatch.setenv("INVKIT_WEIGHTS", "same")
    assert prints() == before
    monkeypatch.setenv("INVKIT_WEIGHTS", "other")
    assert prints()[0] == before[0] and prints()[1] != before[1]


PARTS = [f"&a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]" for n in range(9)]
BOMB = f"01_one: {{number: [{', '.join(PARTS)}]}}"  # half a kilobyte that stands for 9^9 words


@pytest.mark.parametrize(
    ("profile", "text", "sentence"),
    [
        ("quick", "01_one: {numer: 4}", "quick.yaml: 01_one has no parameter 'numer'"),
        ("quick", "01_one: {number: four}", "quick.yaml: 01_one takes number as float"),
        ("quick", "01_one: {number: __import__('os').getpid()}", "quick.yaml: 01_one takes number as float"),
        ("quick", "01_one:\n  number: [1", r"quick.yaml, line 2: this is no valid YAML: expected ',' or ']'"),
        ("quick", "\n01_one: {number: !!python/name:os.system x}", "quick.yaml, line 2: .*constructor for the tag"),
        ("quick", "02_two:\n01_one: 5", "quick.yaml, line 2: the parameters of 01_one are expected as .*, not 5"),
        ("quick", "\n- 5", "quick.yaml, line 2: .* is expected here, not "),
        ("quick", "01_one: {number: '\x00'}", "quick.yaml is no valid YAML"),
        ("quick", "01_one: {number: 2026-13-45}", r"quick.yaml has a value that is none \(month must be in"),
        ("quick", "01_one: {number: !!bool maybe}", "quick.yaml has a value that is none"),
        ("quick", f"01_one: {{number: 1{'0' * 5000}}}", "quick.yaml has a value that is none"),
        ("quick", "01_one: {number: 4}\n01_one:", "quick.yaml, line 2: '01_one' stands here a second time"),
        ("quick", "01_one: {number: 4,\n  number: 5}", "quick.yaml, line 2: 'number' stands here a second time"),
        ("quick", "01_one: {list: [1, {a: 1,\n  a: 2}]}", "quick.yaml, line 2: 'a' stands here a second time"),
        ("quick", BOMB, r"quick.yaml has an alias \(\*name\): write out"),
        ("quick", "03_three: {}", "parameters for 03_three, which is not in notebooks/"),
        ("slow", None, "no profile 'slow'; there are published, quick"),
        ("../profiles/quick", None, "no profile '../profiles/quick'; there are published, quick"),
        ("", None, "no profile ''; there are"),
        ("a" * 5000, None, r"no profile 'a{90,100}…a{90,110}'; there are"),
        ("quick\0", None, r"no profile 'quick\\x00'; there are"),
    ],
)
def test_a_wrong_profile_is_one_sentence(small, profile, text, sentence):
    if text:
        Path("profiles/quick.yaml").write_text(text)
    with pytest.raises(StudyError, match=sentence):
        fingerprint("01_one", profile)


@pytest.mark.parametrize(
    "text", ["[" * 3000, f"01_one: {'[' * 3000}{']' * 3000}", "- " * 3000, "? " * 3000, "{a: " * 3000]
)
def test_a_profile_of_too_many_levels_is_refused_before_anything_is_built_of_it(small, monkeypatch, text):
    """To build 3,000 levels takes a dozen of seconds."""
    monkeypatch.setattr(yaml, "compose", None)
    Path("profiles/quick.yaml").write_text(text)
    with pytest.raises(StudyError, match="quick.yaml is nested more than 100 levels deep: write its"):
        fingerprint("01_one", "quick")


def test_away_from_the_repository_the_sentence_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match="no notebook '01_one'; there are none here: go to the repository's folder"):
        book.run_notebook("01_one", "quick")
    with pytest.raises(StudyError, match="no profile 'quick'; there are none here: go to the repository's folder"):
        parameters("01_one", "quick")


@pytest.mark.parametrize("given", ["abc", "", "0", 0, -1, "nan", "inf", "1e400", None, [1], True, "9" * 5000])
def test_a_number_for_make_that_is_none_is_one_sentence(given):
    with pytest.raises(StudyError, match=r"^SCALE is a number above 0, such as SCALE=1, not [^\n]{1,300}\.$"):
        setting("SCALE", given, float)


def test_a_number_for_make_is_taken_as_a_word_too():
    assert setting("SCALE", "0.1", float) == 0.1 and setting("AT_ONCE", 2, int) == 2
    with pytest.raises(StudyError, match="AT_ONCE is a number above 0"):
        setting("AT_ONCE", 1.5, int)


def test_what_is_long_in_a_sentence_of_the_study_is_shortened(small):
    with pytest.raises(StudyError, match="There is no notebook '0{90,110}…0{90,110}") as told:
        book.run_notebook("0" * 5000, "quick")
    assert len(str(told.value)) < 300


def test_a_slip_in_a_profile_ends_make_with_its_sentence(small):
    Path("profiles/quick.yaml").write_text("01_one: [1")
    made = snakemake(capture_output=True, text=True, check=False)
    assert made.returncode == 1 and "profiles/quick.yaml, line 1: this is no valid YAML" in made.stdout + made.stderr


def snakemake(*more, **options):
    command = [sys.executable, "-m", "snakemake", "--snakefile", ROOT / "Snakefile", "--cores", "2", "--rerun-triggers"]
    command += ["params", "input", "mtime", "code", *(more or ("--quiet", "all"))]
    return subprocess.run(command, **{"check": True} | options)


# ---- whole studies ---------------------------------------------------------------------------------------------------


def test_a_notebook_that_raises_names_itself_and_leaves_its_copy(small):
    change("01_one", 3, "raise RuntimeError('the cat is out')")
    with pytest.raises(StudyError, match="01_one failed .*Error: the cat is out .*failed/01_one.ipynb"):
        book.run_notebook("01_one", "quick")
    assert "the cat is out" in Path("build/quick/failed/01_one.ipynb").read_text()
    assert not Path("build/quick/executed/01_one.ipynb").exists()


def test_a_renamed_copy_with_a_parameter_more_keeps_its_own_results(small):
    book.run_notebook("01_one", "quick")
    opening = "from study import notebook\nstudy = notebook.open('01_one')"  # as it was copied
    cells = [("code", "number = 2.0\nmine = 1", "parameters"), ("code", opening)]
    write_notebook(small / "notebooks/03_mine.ipynb", [*cells, ("code", "study.record('sum', number + mine)")])
    Path("profiles/quick.yaml").write_text("01_one: {number: 4}\n03_mine: {mine: 5}\n")
    book.run_notebook("03_mine", "quick")
    kept = {name: json.loads(book._results("quick", name).read_text()) for name in ("01_one", "03_mine")}
    assert kept["01_one"].keys() == {"double"} and kept["03_mine"]["sum"]["value"] == 7


def test_two_notebooks_of_one_folder_run_at_the_same_time(small):
    for name in notebooks():  # they stay long enough for their kernels to meet
        change(name, 3, "import time\ntime.sleep(3)")
    command = [sys.executable, "-m", "study.book", "run"]
    runs = [subprocess.Popen([*command, name, "--profile", "quick"]) for name in notebooks()]
    assert [run.wait(timeout=300) for run in runs] == [0, 0]
    assert len(list(Path("build/quick/executed").glob("*.ipynb"))) == 2


def test_a_published_copy_is_taken_while_its_inputs_are_the_same(small, capsys):
    change("01_one", 3, "study.record('double', 2 * number)\nprint('ran')")
    book.run_notebook("01_one", "published")
    book.publish()
    shutil.rmtree("build")
    change("01_one", 0, "# Another title")
    book.run_notebook("01_one", "published")
    assert "unchanged since it was published" in capsys.readouterr().out
    assert json.loads(Path("build/published/executed/01_one.results.json").read_text())["double"]["value"] == 4
    change("01_one", 1, "number = 3.0")
    book.run_notebook("01_one", "published")
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
    for name in notebooks():
        book.run_notebook(name, "published")
    executed = sum(path.stat().st_size for path in Path("build/published/executed").iterdir())
    book.publish()
    stored = {path.name: path.stat().st_size for path in Path("book/published").iterdir()}
    results = {f"{name}.results.json" for name in notebooks()}
    assert set(stored) == {"01_one.ipynb", "02_two.ipynb", "01_one.chart.png"} | results
    assert sum(stored.values()) < executed / 2
    kinds = [kind for cell in json.loads(Path("book/published/01_one.ipynb").read_text())["cells"]
             for output in cell.get("outputs", []) for kind in output.get("data", {}) if "image" in kind]  # fmt: skip
    assert [kind.rpartition("/")[2] for kind in kinds] == ["png", "jpeg"]

    shutil.rmtree("build")
    capsys.readouterr()
    for name in notebooks():
        book.run_notebook(name, "published")
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
    for name in notebooks():
        facts = {"invkit": {"fingerprint": fingerprint(name, "published")}}
        (folder / f"{name}.ipynb").write_text(json.dumps({"cells": [], "metadata": facts}))
        (folder / f"{name}.results.json").write_text("{}")


def test_a_picture_that_a_cell_shows_is_published_once_and_a_copy_that_was_taken_stays_as_it_is(small, monkeypatch):
    executed_as_they_are()
    path, picture = Path("build/published/executed/01_one.ipynb"), "aGVsbG8="
    monkeypatch.setattr(published, "_smaller", lambda original: ("png", original))
    kept = {"application/papermill.record/image/png": picture, "application/papermill.record/text/plain": "1"}
    outputs = [{"output_type": "display_data", "data": kept, "metadata": {}},
               {"output_type": "execute_result", "data": {"image/png": picture}, "metadata": {}}]  # fmt: skip
    other = {"output_type": "display_data", "data": {"application/papermill.record/image/png": "d29ybGQ="}}
    notebook = json.loads(path.read_text())
    notebook["cells"] = [
        {"cell_type": "code", "source": "", "metadata": {}, "outputs": some} for some in (outputs, [other])
    ]
    path.write_text(json.dumps(notebook))
    book.publish()
    stored = Path("book/published/01_one.ipynb")
    first, second = json.loads(stored.read_text())["cells"]
    assert [list(output["data"]) for output in first["outputs"]] == [[pages.GLUED], ["image/png"]]
    assert second["outputs"][0]["data"] == other["data"]  # it is shown by a page alone
    shutil.copy(stored, path)
    monkeypatch.setattr(published, "_compressed", None)  # what was taken is not made anew
    for name in notebooks():
        shutil.copy(f"book/published/{name}.ipynb", path.parent)
    book.publish()


def test_too_much_is_not_published(small, monkeypatch):
    executed_as_they_are()
    monkeypatch.setattr(published, "MOST_PUBLISHED", 10)
    with pytest.raises(StudyError, match="would hold 0.0 MiB, more than 0 MiB: make fewer or smaller figures"):
        book.publish()
    assert not Path("book/published").exists()


def test_what_was_executed_before_a_change_is_not_published(small, capsys):
    executed_as_they_are()
    change("02_two", 3, "print('another')")
    book.publish()
    assert "02_two was not executed as it is now: its published copy is missing." in capsys.readouterr().out
    assert not Path("book/published/02_two.ipynb").exists() and Path("book/published/01_one.ipynb").exists()


def test_new_weights_unpublish_only_who_takes_them_as_a_parameter(small):
    Path("weights/dci-small").mkdir(parents=True)
    card = Path("weights/dci-small/card.json")
    card.write_text('{"sha256": "a"}')
    Path("profiles/published.yaml").write_text("02_two: {note: dci-small}")
    before = prints_published()
    card.write_text('{"sha256": "a", "words": "others"}')
    assert prints_published() == before
    card.write_text('{"sha256": "b"}')
    assert prints_published()[0] == before[0] and prints_published()[1] != before[1]


def test_a_mend_that_moves_no_number_is_vouched_for(small, capsys):
    executed_as_they_are()
    book.publish()
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", *command], check=True)
    old = prints_published()
    change("01_one", 3, "study.record('double', number * 2, unit='m', n=1)")
    published.vouch("multiplied the other way round.")
    assert "Vouched for: 01_one, 02_two." in capsys.readouterr().out  # the second loads the first's results
    Path("build/published/executed").mkdir(parents=True, exist_ok=True)
    for name, before, now in zip(notebooks(), old, prints_published(), strict=True):
        assert before != now and published.take(name, now, Path("build/published/executed"))
        facts = published.facts_of(Path(f"book/published/{name}.ipynb"))
        assert facts["vouched"] == [{"executed as": before, "why": "multiplied the other way round."}]
    first = {"source": "# One\n\nIt is.\n", "metadata": {}, "cell_type": "markdown"}
    shown = pages.framed(first, "01_one", facts)["source"]
    assert "without a change of its numbers</summary><ul><li>Multiplied the other way round.</li>" in shown

    change("02_two", 3, "print('another')")
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "b"], check=True)
    change("02_two", 3, "print('a third')")
    published.vouch("not of the last commit, so it stays old.")
    assert "Vouched for: none" in capsys.readouterr().out


def test_without_a_last_commit_nothing_is_vouched_for(small):
    executed_as_they_are()
    book.publish()
    with pytest.raises(StudyError, match="The last commit cannot be looked at"):
        published.vouch("why")


def prints_published():
    return [fingerprint(name, "published") for name in notebooks()]


def test_what_is_published_here_fits_a_repository_and_is_stamped():
    stored = sorted((ROOT / "book/published").glob("*.ipynb"))
    if not stored:
        pytest.skip("nothing is published yet")
    assert sum(path.stat().st_size for path in stored[0].parent.iterdir()) <= published.MOST_PUBLISHED
    for path in stored:
        facts = json.loads(path.read_text())["metadata"]["invkit"]
        assert facts["profile"] == "published" and path.with_name(f"{path.stem}.results.json").exists()
        assert facts.keys() >= {"fingerprint", "date", "machine", "minutes", "version"}
        assert "Made with profile *published*" in path.read_text(), path.stem


def test_every_chapter_has_a_published_copy():
    """Without one, `make book PROFILE=published` has nothing to compile its page from."""
    stored = {path.stem for path in (ROOT / "book/published").glob("*.ipynb")}
    assert stored == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


def shown_code(page):
    """The code that a page shows, cell by cell."""
    cells = re.findall(r'<div class="cell_input[^>]*>.*?<pre>(.*?)</pre>', page, flags=re.DOTALL)
    return [html.unescape(re.sub("<[^>]+>", "", cell)).strip() for cell in cells]


def test_the_published_book_runs_nothing_and_says_what_is_old(small, capfd):
    """One chapter as it was published, of one the code has changed since: its page is the published copy."""
    Path("profiles/published.yaml").write_text("01_one: {number: 5}\n02_two: {note: words}\n")
    for name in notebooks():
        book.run_notebook(name, "published")
    published.publish()
    shutil.rmtree("build")
    change("01_one", 0, "# New title of the first\n\nIt is {glue:text}`double`.")
    change("02_two", 0, "# New title of the second")
    change("02_two", 3, "raise RuntimeError('this must not run')")
    capfd.readouterr()
    snakemake("--quiet", "all", "--config", "profile=published")

    said = capfd.readouterr().out
    assert "02_two was executed with version" in said and "01_one was executed" not in said
    assert "`make published` runs it again" in said and not list(Path("build").rglob("executed"))
    pages = {page.stem: page.read_text() for page in Path("build/published/html").glob("*.html")}
    assert "New title of the first" in pages["01_one"] and "It is" in pages["01_one"] and "10.0 m" in pages["intro"]
    assert "has changed since" not in pages["01_one"] and "have changed since" in pages["02_two"]
    assert "New title of the second" not in pages["02_two"] and "must not run" not in pages["02_two"]
    assert shown_code(pages["01_one"])[0] == "number = 5" and shown_code(pages["02_two"])[0] == 'note = "words"'

    with pytest.raises(StudyError, match="There is no executed copy of 01_one: run `make published`"):
        shutil.rmtree("book/published")
        book.compile("published")


def test_a_copy_executed_here_is_shown_rather_than_an_older_published_one(small):
    book.run_notebook("01_one", "published")
    published.publish()
    assert pages.executed_copy("01_one", "published") == Path("build/published/executed/01_one.ipynb")
    change("01_one", 3, "print('another')")
    book.run_notebook("01_one", "published")
    assert pages.executed_copy("01_one", "published") == Path("build/published/executed/01_one.ipynb")
    change("01_one", 3, "print('a third')")
    shutil.rmtree("build")
    assert pages.executed_copy("01_one", "published") == Path("book/published/01_one.ipynb")


def test_pages_lead_to_the_repository_from_which_github_builds_them(small, monkeypatch):
    assert "http" not in pages._with_buttons(small / "here.yml").read_text()
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/something")
    config = yaml.safe_load(pages._with_buttons(small / "there.yml").read_text())
    assert config["repository"]["url"] == "https://github.com/someone/something"
    assert config["repository"]["path_to_book"] == "notebooks" and config["html"]["use_issues_button"]
    assert {"binderhub_url", "colab_url"} <= config["launch_buttons"].keys()
    assert config.keys() - {"repository"} == yaml.safe_load(Path("_config.yml").read_text()).keys()


def test_binder_installs_what_the_makefile_installs():
    installed = "".join(path.read_text() for path in sorted((ROOT / ".binder").iterdir()))
    named = set(re.findall(r"requirements[\w-]*\.txt", (ROOT / "Makefile").read_text()))
    assert named and all(name in installed and (ROOT / name).is_file() for name in named)


def test_seconds_are_printed_longest_first(small, capsys):
    facts = {"01_one": {"seconds": 3}, "02_two": {"minutes": 1.5}}
    for name, one in facts.items():
        write_notebook(small / f"{name}.ipynb", [])
        notebook = json.loads(Path(f"{name}.ipynb").read_text())
        Path(f"{name}.ipynb").write_text(json.dumps(notebook | {"metadata": {"invkit": one}}))
    pages._print_seconds({name: Path(f"{name}.ipynb") for name in facts})
    assert capsys.readouterr().out.splitlines()[1:] == ["      90  02_two", "       3  01_one"]


# ---- the parameters that a page shows --------------------------------------------------------------------------------

PARAMETERS = """steps = 100  # of Adam
inverters = {  # of each classifier
    "standard": "ffi-glyphs-standard",
}
photos = ['chelsea']  # by name
# A comment of its own.
last = None"""


def test_the_parameters_shown_are_those_that_were_run():
    given = {
        "steps": 3,
        "photos": ["chelsea"],
        "inverters": {f"number {k}": [k, 1e-4, None] for k in range(3)},
        "last": -1,
    }
    shown = pages.with_values(PARAMETERS, given)
    assert default_parameters_of(shown) == given
    assert shown.splitlines() == [
        "steps = 3  # of Adam",
        "inverters = {  # of each classifier",
        '    "number 0": [0, 0.0001, None],',
        '    "number 1": [1, 0.0001, None],',
        '    "number 2": [2, 0.0001, None],',
        "}",
        "photos = ['chelsea']  # by name",
        "# A comment of its own.",
        "last = -1",
    ]
    comment = "a very long remark on what this number does and does not do"
    shown = pages.with_values(f"names = []  # {comment}", {"names": ["name"] * 5})
    assert shown.splitlines() == [f"# {comment}", 'names = ["name", "name", "name", "name", "name"]']


def default_parameters_of(code):
    return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(code).body}


@pytest.mark.parametrize("profile", ["quick", "published", "imagenet"])
@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "notebooks").glob("*.ipynb"))])
def test_every_page_shows_the_parameters_of_its_profile(monkeypatch, name, profile):
    monkeypatch.chdir(ROOT)
    given, defaults = parameters(name, profile), default_parameters(f"notebooks/{name}.ipynb")
    cells = json.loads(Path(f"notebooks/{name}.ipynb").read_text())["cells"]
    source = next(source_of(cell) for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    shown = pages.with_values(source, given)
    assert default_parameters_of(shown) == defaults | given
    assert all(len(line) <= 88 for line in set(shown.splitlines()) - set(source.splitlines()))


def test_pages_of_published_copies_show_what_was_run():
    for path in (ROOT / "book/published").glob("*.ipynb"):
        cells = json.loads(path.read_text())["cells"]
        own = next(source_of(cell) for cell in cells if "parameters" in cell["metadata"].get("tags", []))
        given = injected_parameters([source_of(cell) for cell in cells if cell["cell_type"] == "code"])
        assert default_parameters_of(pages.with_values(own, given)) == default_parameters_of(own) | given


# ---- what reaches the page -------------------------------------------------------------------------------------------


def test_warnings_reach_the_page_and_progress_bars_do_not():
    def cleaned(text):
        return [one["text"] for one in without_progress([{"output_type": "stream", "name": "stderr", "text": text}])]

    bar = "\r 10%|#         | 1/10 [00:01<00:09,  1.02it/s]\r 20%|##  | 2/10 [00:02<00:08,  1.02s/it]\n"
    warning = "/opt/someone/.venv/lib/python3.11/site-packages/x/y.py:12: UserWarning: the adversary collapsed\n"
    assert cleaned(bar) == []
    assert cleaned([bar, warning, "\n"]) == ["y.py:12: UserWarning: the adversary collapsed\n"]
    stdout = {"output_type": "stream", "name": "stdout", "text": bar}
    assert without_progress([stdout]) == [stdout]
    assert without_progress([{"data": {"application/vnd.jupyter.widget-view+json": {}}}]) == []


# ---- check -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def results(small):
    """Results of the quick profile, and those that are expected; the test may change them and write them again."""

    def write(second=8.0, **more):
        Path("build/quick/executed").mkdir(parents=True, exist_ok=True)
        first = {"double": {"value": 8.0, "tolerance": 0.4}, "seconds": {"value": 3.0, "tolerance": None}}
        first |= {"verdict": {"text": "helps"}, "words": {"text": "at most 1.3 points"}}
        Path("build/quick/executed/01_one.results.json").write_text(json.dumps(first))
        second = {"triple": {"value": second, "tolerance": 0.5}} | more
        Path("build/quick/executed/02_two.results.json").write_text(json.dumps(second))

    write()
    return write


def test_check_finds_all_as_expected(results, capsys):
    book.expect()
    assert json.loads(Path("profiles/quick.expected.json").read_text())["01_one"] == {
        "double": {"value": 8.0, "tolerance": 0.4},
        "verdict": {"text": "helps"},
    }
    results(8.4)
    book.check()
    assert capsys.readouterr().out == "All 3 results of the profile quick are as expected.\n"


def test_check_lists_what_differs(results, capsys):
    book.expect()
    expected = json.loads(Path("profiles/quick.expected.json").read_text())
    expected["01_one"] = {"verdict": {"text": "hurts"}, "gone": {"value": 1.0, "tolerance": 1.0}}
    Path("profiles/quick.expected.json").write_text(json.dumps(expected))
    results(8.6, new={"value": 1.0, "tolerance": 0.1}, word={"text": "not expected, not compared"})
    with pytest.raises(StudyError, match="^5 differences, listed above, from 3 expected results"):
        book.check()
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "01_one: verdict is 'helps', not 'hurts'.",
        "01_one: expected, but not recorded: gone.",
        "01_one: recorded, but not expected: double; `python -m study.book expect` adds them.",
        "02_two: triple is 8.6, not 8 within 0.5.",
        "02_two: recorded, but not expected: new; `python -m study.book expect` adds them.",
    ]
    results(float("nan"))
    Path("build/quick/executed/01_one.results.json").unlink()
    with pytest.raises(StudyError, match="^3 differences"):
        book.check()
    assert capsys.readouterr().out.splitlines() == [
        "01_one was not run: `make notebook NAME=01_one` runs it.",
        "02_two: triple is nan, not 8 within 0.5.",
    ]


def test_check_of_nothing_is_red(small):
    checked = subprocess.run([sys.executable, "-m", "study.book", "check"], capture_output=True, text=True)
    assert checked.returncode == 1
    assert checked.stderr == "There is nothing to check: `make book` first, which makes the profile quick.\n"


# ---- whole books -----------------------------------------------------------------------------------------------------


def test_snakemake_builds_the_book_and_repeats_only_what_changed(small):
    def make():
        snakemake()
        return {path.stem: path.stat().st_mtime_ns for path in Path("build/quick/executed").glob("*.ipynb")}

    once = make()
    page = Path("build/quick/html/01_one.html").read_text()
    assert "8.00 m" in page and "8.00 m" in Path("build/quick/html/intro.html").read_text()
    assert "# Parameters" not in page and "working" not in page and "warning" in page
    assert shown_code(page)[0] == "number = 4"
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


def test_snakemake_knows_copies_that_were_made_by_hand_deleted_or_are_old(small):
    def ready():
        """Which notebooks `make book` would run, where all pages are made."""
        said = snakemake("-n", "--printshellcmds", capture_output=True, text=True).stdout
        return sorted(set(re.findall(r"study.book run (\S+)", said)))

    def by_hand(name):
        book.run_notebook(name, "quick")

    for name in notebooks():
        by_hand(name)
    Path("build/quick/html").mkdir()
    Path("build/quick/html/index.html").touch()
    assert ready() == []
    change("01_one", 3, "study.record('double', 3 * number, unit='m', n=1)")
    assert ready() == ["01_one", "02_two"]  # the second loads the first's results
    by_hand("01_one")
    assert ready() == ["02_two"]
    by_hand("02_two")
    change("02_two", 3, "print('read again', study.results_of('01_one')['double']['value'])")
    copy = Path("build/quick/executed/02_two.ipynb")
    for file in (copy, copy.with_name("02_two.results.json")):  # made by a machine whose clock is ahead
        os.utime(file, (2 * file.stat().st_mtime,) * 2)
    assert ready() == ["02_two"]
    copy.unlink()
    assert ready() == ["02_two"]


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
    needed = ["glyphs-standard-0", "glyphs-standard-1", "glyphs-plain-1"]  # which are not in this folder
    assert sorted(order) == sorted([*names, *needed])
    chain = ["glyphs-standard-0", "glyphs-robust-0", "glyphs-early-0", "ffi-glyphs-early"]
    assert [name for name in order if name in chain] == chain


def test_a_warning_of_sphinx_leaves_the_old_pages(small, capfd):
    for name in notebooks():
        Path("build/quick/executed").mkdir(parents=True, exist_ok=True)
        shutil.copy(f"notebooks/{name}.ipynb", "build/quick/executed")
    Path("build/quick/html").mkdir()
    Path("build/quick/html/old").touch()
    with pytest.raises(StudyError, match="no page was replaced"):  # nothing was glued
        book.compile("quick")
    assert "double" in capfd.readouterr().err and Path("build/quick/html/old").exists()


def test_a_notebook_runs_as_the_jupyterlab_of_another_environment_leaves_it(small):
    path = Path("notebooks/01_one.ipynb")
    kernel = {"name": "somebodys-env", "display_name": "Somebody's", "language": "python"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"metadata": {"kernelspec": kernel}}))
    book.run_notebook("01_one", "quick")
    assert json.loads(Path("build/quick/executed/01_one.results.json").read_text())["double"]["value"] == 8


def test_a_temporary_folder_with_a_long_path_is_no_place_for_sockets(small, monkeypatch):
    long = small / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr(book.tempfile, "tempdir", str(long))
    book.run_notebook("01_one", "quick")
    assert Path("build/quick/executed/01_one.ipynb").is_file()


def test_a_kernel_that_is_late_is_one_sentence(small, monkeypatch):
    import papermill
    from nbclient.exceptions import CellTimeoutError

    def late(*arguments, iopub_timeout, **settings):
        assert iopub_timeout >= 600
        raise CellTimeoutError("Timeout waiting for IOPub output")

    monkeypatch.setattr(papermill, "execute_notebook", late)
    with pytest.raises(StudyError, match="^01_one: its kernel was silent for 600 s"):
        book.run_notebook("01_one", "quick")


def test_a_stray_file_among_the_notebooks_is_one_sentence(small):
    Path("notebooks/Untitled.ipynb").write_text("{}")
    with pytest.raises(StudyError, match="Untitled.ipynb has 0 cells tagged 'parameters'"):
        default_parameters("notebooks/Untitled.ipynb")


@pytest.mark.parametrize("name", ["5", "../README.md"])
def test_make_says_which_notebooks_there_are(name):
    command = ["make", "-o", ".venv/installed", "notebook", f"NAME={name}", "BIN=/nowhere"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr.startswith(f"There is no notebook {name}; there are: 01_classifiers 02_")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["book", "PROFILE=quik"], "There is no profile quik; there are imagenet published quick."),
        (["book", "PROFILE=../profiles/quick"], "There is no profile ../profiles/quick; there are imagenet"),
        (["book", "PROFILE=published quick"], "There is no profile published quick; there are imagenet"),
        (["book", "CLUSTER=slrum"], "There is no cluster slrum; there are kubernetes slurm."),
        (["weights", "SCALE=0.1 2"], "SCALE and AT_ONCE are one number each, such as SCALE=0.1, not 0.1 2 and"),
        (["weights", "NETWORKS=a ../b"], "NETWORKS are names, such as NETWORKS=glyphs-plain-0, not the path a ../b."),
    ],
)
def test_make_refuses_what_is_none_before_anything_is_made(given, sentence):
    command = ["make", "-n", "-o", ".venv/installed", *given]
    by_hand = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=by_hand)
    assert found.returncode == 2 and found.stdout == "" and found.stderr.count("\n") == 1
    assert f"*** {sentence}" in found.stderr


def test_make_takes_what_there_is():
    given = (["book", "PROFILE=published", "CLUSTER=slurm"], ["weights", "NETWORKS=a b", "SCALE=0.1"], ["book"])
    for one in given:
        subprocess.run(["make", "-n", "-o", ".venv/installed", *one], cwd=ROOT, capture_output=True, check=True)


def test_make_has_processes_keep_their_buffers_unless_the_user_says_otherwise(tmp_path):
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text() + "\nshow:\n\t@echo $$MALLOC_TRIM_THRESHOLD_\n")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    for given, expected in (({}, str(2**30)), ({"MALLOC_TRIM_THRESHOLD_": "4096"}, "4096")):
        found = subprocess.run(
            ["make", "-s", "show"], cwd=tmp_path, env=plain | given, capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == expected


def test_make_hides_the_users_locale_and_cluster():
    text = (ROOT / "Makefile").read_text()
    assert "\nexport PYTHONUTF8 = 1\n" in text and "\nunexport SNAKEMAKE_PROFILE\n" in text


def test_make_leaves_no_checkpoints_of_finished_weights_behind(tmp_path):
    """As they stay where the shell that would have deleted them was killed."""
    for name, file in (("done", "card.json"), ("under way", "other")):
        (tmp_path / f"build/weights/{name}/training").mkdir(parents=True)
        (tmp_path / f"build/weights/{name}/{file}").touch()
    for code, left in ((1, {"done", "under way"}), (0, {"under way"})):
        (tmp_path / "python").write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / "python").chmod(0o755)
        command = ["make", "-f", ROOT / "Makefile", "-o", ".venv/installed", f"BIN={tmp_path}", "weights"]
        assert (subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0) == (code == 0)
        assert {path.parent.name for path in tmp_path.rglob("training")} == left
