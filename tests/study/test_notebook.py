"""A notebook's side of the study."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers import write_notebook

from invkit import store
from invkit.statistics import Interval
from study import notebook


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The environment of a notebook whose parameters are ``steps`` and ``photos``."""
    source = tmp_path / "notebooks" / "01_one.ipynb"
    write_notebook(source, [("code", "steps = 100  # of Adam\nphotos = ['chelsea']", "parameters")])
    facts = {"profile": "quick", "source": str(source), "results": str(tmp_path / "out"), "folder": str(tmp_path / "f")}
    monkeypatch.setenv(notebook.RUN_VARIABLE, json.dumps(facts))
    return tmp_path


@pytest.fixture
def executed(monkeypatch):
    """The cells that the kernel has executed, to be filled by the test."""
    cells = [""]
    monkeypatch.setattr(notebook, "_cells_executed", lambda: cells)
    return cells


@pytest.fixture
def open_with(run, executed):
    """Open the study in a notebook to which papermill gave these parameters."""

    def open_with(**parameters):
        injected = "".join(f"{name} = {value!r}\n" for name, value in parameters.items())
        executed.extend(["steps = 100\nphotos = ['chelsea']", f"# Parameters\n{injected}"])
        return notebook.open("01_one")

    return open_with


def test_open_accepts_the_parameters_of_the_notebook(open_with):
    assert open_with(steps=3, photos=["a", "b"]).profile == "quick"


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"stepz": 3}, ValueError, "01_one has no parameter 'stepz'; it has steps, photos."),
        ({"steps": "3"}, TypeError, "01_one takes steps as int, such as 100, not '3'."),
        ({"steps": True}, TypeError, "01_one takes steps as int, such as 100, not True."),
        ({"photos": [1]}, TypeError, r"01_one takes photos as list, such as \['chelsea'\], not \[1\]."),
    ],
)
def test_open_names_what_is_wrong_with_a_parameter(open_with, given, error, sentence):
    with pytest.raises(error, match=sentence):
        open_with(**given)


def test_other_variables_of_the_notebook_do_not_matter(run, executed):
    executed += ["steps = 100\nphotos = ['chelsea']", "stepz = 3\nsteps = 'now a word'"]
    assert notebook.open("01_one").profile == "quick"


def test_a_copy_of_a_chapter_has_its_own_parameters_and_its_own_results(run, open_with, executed, glued):
    executed += ["steps = 100\nphotos = ['chelsea']\nmine = 3\nmore = 2 * mine", "# Parameters\nmine = 4\nmore = 'x'\n"]
    opened = notebook.open("07_zero_shot_inversion")  # whose cells it copied
    opened.record("answer", 42)
    assert (opened.name, opened.chapter) == ("01_one", "07_zero_shot_inversion")
    assert json.loads((run / "out" / "01_one.results.json").read_text()).keys() == {"answer"}
    executed[-1] = "# Parameters\nmin = 4\n"
    with pytest.raises(ValueError, match="01_one has no parameter 'min'; it has steps, photos, mine, more."):
        notebook.open("07_zero_shot_inversion")


@pytest.mark.parametrize(
    ("command", "server", "file"),
    [
        (["python", "/bin/papermill", "here/mine.ipynb", "out.ipynb", "-p", "n", "3"], "", "here/mine.ipynb"),
        (["python", "-m", "papermill", "mine.ipynb", "out.ipynb"], "/outer.ipynb", "mine.ipynb"),
        (["jupyter-nbconvert", "--execute", "mine.ipynb"], "", "mine.ipynb"),
        (["python", "/bin/jupyter-lab", "other.ipynb"], "/lab/mine.ipynb", "/lab/mine.ipynb"),
        (["python", "script.py"], "", None),
    ],
)
def test_a_notebook_run_by_hand_goes_by_its_files_name(monkeypatch, command, server, file):
    monkeypatch.setattr("psutil.Process", lambda number: SimpleNamespace(cmdline=lambda: command))
    monkeypatch.setenv("JPY_SESSION_NAME", server)
    assert notebook._file_by_hand() == file


def test_joining_the_study_imports_nothing_heavy():
    """So that a wrong parameter is told of at once."""
    code = "import sys, invkit; from study import notebook; print(sys.modules.keys() & {'torch', 'numpy', 'pandas'})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_checkpoints_by_hand_are_kept_for_the_same_parameters_alone(executed, monkeypatch):
    monkeypatch.delenv(notebook.RUN_VARIABLE, raising=False)
    monkeypatch.setattr(notebook, "_file_by_hand", lambda: None)
    monkeypatch.setattr(notebook.Path, "mkdir", lambda *_, **__: None)
    executed += ["steps = 100", "# Parameters\nsteps = 3\n"]
    folders = [notebook.open("01_one").folder for _ in range(2)]
    executed[-1] = "# Parameters\nsteps = 4\n"
    other = notebook.open("01_one").folder
    assert folders[0] == folders[1] != other and other.parent.name == "01_one" and other.parents[1].name == "by-hand"


def test_a_value_that_is_no_literal_is_left_out():
    assert notebook.injected_parameters(["# Parameters\na = float('inf')\nb = -2.5\n"]) == {"b": -2.5}


def test_opening_twice_in_one_kernel_works_and_a_wrong_parameter_by_hand_does_not(tmp_path):
    """As plain papermill runs a notebook of the repository, in a real kernel."""
    import papermill

    opening = "from study import notebook\nstudy = notebook.open('01_one')"
    cells = [
        ("code", "steps = 100", "parameters"),
        ("code", opening),
        ("code", "steps, extra = 'x', 1"),
        ("code", opening),
    ]
    write_notebook(tmp_path / "01_one.ipynb", cells)
    facts = {
        "profile": "quick",
        "source": str(tmp_path / "01_one.ipynb"),
        "results": str(tmp_path),
        "folder": str(tmp_path),
    }
    run = ("code", f"import os\nos.environ[{notebook.RUN_VARIABLE!r}] = {json.dumps(facts)!r}")
    write_notebook(tmp_path / "run.ipynb", [cells[0], run, *cells[1:]])
    papermill.execute_notebook(tmp_path / "run.ipynb", None, {"steps": 3}, progress_bar=False)
    with pytest.raises(papermill.PapermillExecutionError, match="01_one has no parameter 'stepz'; it has steps."):
        papermill.execute_notebook(tmp_path / "run.ipynb", None, {"stepz": 3}, progress_bar=False)


def test_types_that_a_default_accepts():
    notebook.check_parameters(
        "n", {"rate": 0.1, "limit": None, "names": []}, {"rate": 1, "limit": "x", "names": [1, "a"]}
    )


def test_the_parameters_cell_must_be_one_and_literal(tmp_path):
    write_notebook(tmp_path / "two.ipynb", [("code", "a = 1", "parameters"), ("code", "b = 2", "parameters")])
    with pytest.raises(notebook.StudyError, match="2 cells tagged 'parameters'"):
        notebook.default_parameters(tmp_path / "two.ipynb")
    write_notebook(tmp_path / "computed.ipynb", [("code", "a = len('abc')", "parameters")])
    with pytest.raises(notebook.StudyError, match="only assignments"):
        notebook.default_parameters(tmp_path / "computed.ipynb")


@pytest.fixture
def glued(monkeypatch):
    """What reaches the prose."""
    texts = {}
    monkeypatch.setattr("myst_nb.glue", lambda id, value, display: texts.update({id: value}))
    return texts


def test_record_reaches_results_and_prose(run, open_with, glued):
    opened = open_with(steps=3, photos=["a"])
    opened.record("psnr", 18.234, ci95=(17.5, 18.9), unit="dB", n=20, depth=8)
    opened.record("seconds", 1234.6, unit="s", tolerance=None)
    results = json.loads((run / "out" / "01_one.results.json").read_text())
    assert results["psnr"] == {
        "value": 18.234, "ci95": [17.5, 18.9], "unit": "dB", "n": 20, "tolerance": pytest.approx(0.9117), "depth": 8,
    }  # fmt: skip
    assert results["seconds"]["tolerance"] is None
    assert glued == {"psnr": "18.2 dB", "psnr_ci": "17.5 to 18.9 dB", "psnr_n": "20", "seconds": "1235 s"}
    assert opened.results_of("01_one") == results


def test_an_interval_brings_its_ends_and_its_count(run, open_with, glued):
    opened = open_with(steps=3, photos=["a"])
    opened.record("found", Interval(50.0, 25.0, 75.0, 9), unit="%")
    results = json.loads((run / "out" / "01_one.results.json").read_text())
    assert results["found"] == {"value": 50.0, "ci95": [25.0, 75.0], "unit": "%", "n": 9, "tolerance": 2.5}
    assert glued == {"found": "50.0 %", "found_ci": "25.0 to 75.0 %", "found_n": "9"}


MEASURES = {
    "psnr": SimpleNamespace(title="PSNR", unit="dB", factor=1, digits=2, tolerance=0.5),
    "found": SimpleNamespace(title="found", unit="%", factor=100, digits=1, tolerance=5),
}


@pytest.fixture
def measures(monkeypatch):
    monkeypatch.setattr(notebook, "_measures", lambda: MEASURES)


def test_a_measure_brings_its_unit_factor_and_tolerance(run, open_with, glued, measures):
    opened = open_with(steps=3, photos=["a"])
    opened.record_interval("found", "Robust, depth 8", Interval(0.5, 0.25, 0.75, 9), verdict="more")
    opened.record_interval("psnr", "one-hot", Interval(20.0, 19.0, 21.0, 9), digits=2, tolerance=None)
    results = json.loads((run / "out" / "01_one.results.json").read_text())
    assert results == {
        "found_robust_depth_8": {
            "value": 50, "ci95": [25, 75], "unit": "%", "n": 9, "tolerance": 5, "verdict": "more",
        },
        "psnr_one_hot": {"value": 20, "ci95": [19, 21], "unit": "dB", "n": 9, "tolerance": None},
    }  # fmt: skip
    assert glued["found_robust_depth_8"] == "50.0 %" and glued["psnr_one_hot_ci"] == "19 to 21 dB"


def test_words_are_recorded_like_numbers(run, open_with, glued):
    opened = open_with(steps=3, photos=["a"])
    opened.record_text("verdict", "costs accuracy")
    assert json.loads((run / "out" / "01_one.results.json").read_text()) == {"verdict": {"text": "costs accuracy"}}
    assert glued == {"verdict": "costs accuracy"}
    with pytest.raises(ValueError, match="records 'verdict' twice"):
        opened.record("verdict", 1)


def test_rows_and_several_words_are_recorded_at_once(run, open_with, glued, measures):
    opened = open_with(steps=3, photos=["a"])
    row = {"found": Interval(0.5, 0.25, 0.75, 9), "psnr": Interval(20.0, 19.0, 21.0, 9)}
    opened.record_rows({"one": row, "two": {"psnr": row["psnr"]}}, ["psnr", "found"], prefix="over ", digits=2)
    opened.record_rows({"all": row})
    opened.record_texts(images=6000, words="not told apart")
    results = json.loads((run / "out" / "01_one.results.json").read_text())
    numbers = ["psnr_over_one", "found_over_one", "psnr_over_two", "found_all", "psnr_all"]
    assert list(results) == [*numbers, "images", "words"]
    assert glued["psnr_over_one"] == "20 dB" and glued["found_all"] == "50.0 %"
    assert glued["images"] == "6,000" and glued["words"] == "not told apart"


def test_many_are_recorded_at_once(run, open_with, glued, measures):
    opened = open_with(steps=3, photos=["a"])
    rows = {"one-hot": {"psnr": Interval(20.0, 19.0, 21.0, 9), "found": Interval(0.5, 0.25, 0.75, 9)}, "ridge": {}}
    opened.record_rows(rows, ["psnr", "ssim"], prefix="own ")
    opened.record_texts(n_images=6000, verdict="helps")
    opened.record_text("luck", "hurts", compared=False)
    results = json.loads((run / "out" / "01_one.results.json").read_text())
    assert results.keys() == {"psnr_own_one_hot", "n_images", "verdict", "luck"}
    assert results["n_images"] == {"text": "6,000"} and results["luck"] == {"text": "hurts", "compared": False}


def test_a_table_has_the_measures_titles_units_and_digits(open_with, measures):
    opened = open_with(steps=3, photos=["a"])
    rows = {
        "standard": {"psnr": Interval(20.123, 19.0, 21.0, 9), "found": Interval(0.5, 0.25, 0.75, 9), "images": 12000},
        "mean image": {"psnr": 12.0, "found": None, "note": "the same for all"},
    }
    table = opened.table(rows, title="inverter")
    assert list(table.columns) == ["PSNR, dB", "found, %", "images", "note"] and table.index.name == "inverter"
    assert table.loc["standard"].tolist() == ["20.12 [19.00, 21.00]", "50.0 [25.0, 75.0]", "12,000", ""]
    assert table.loc["mean image"].tolist() == ["12.00", "–", "", "the same for all"]
    table = opened.table({("a", "b"): {"psnr": Interval(0.5, -0.25, 1.0, 9)}}, title=["arm", "minus"], signed=True)
    assert table.loc[("a", "b"), "PSNR, dB"] == "+0.50 [-0.25, +1.00]" and table.index.names == ["arm", "minus"]
    assert opened.table({}) is None  # of which a page shows nothing
    long = opened.table({f"row {i}": {"psnr": 1.0} for i in range(70)})
    assert long._repr_html_().count("<tr>") >= 70 and "..." not in long._repr_html_()


def test_a_grid_of_images_is_a_figure(run, open_with, glued):
    open_with(steps=1, photos=["a"]).grid("photos", {"photo": torch.rand(2, 3, 4, 4)}, captions={"photo": ["a", "b"]})
    assert "photos" in glued and (run / "out" / "01_one.photos.png").exists()


def test_what_was_not_measured_is_recorded_as_such(run, open_with, glued):
    opened = open_with(steps=3, photos=["a"])
    opened.record("none", None, verdict="not testable")
    result = json.loads((run / "out" / "01_one.results.json").read_text())["none"]
    assert result["value"] is None and result["tolerance"] is None and result["verdict"] == "not testable"
    assert glued["none"] == "not measured"


def test_record_refuses_the_same_id_twice(open_with, glued):
    opened = open_with(steps=3, photos=["a"])
    opened.record("psnr", 1)
    with pytest.raises(ValueError, match="records 'psnr' twice"):
        opened.record("psnr", 2)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.98765, 3, "0.988"), (1234.5, 3, "1234"), (0.00012345, 2, "0.00012"), (-3.14159, 3, "-3.14"), (0, 3, "0")],
)
def test_significant_digits(value, digits, text):
    assert notebook._significant(value, digits) == text


def test_figure_is_glued_and_written(run, open_with, glued):
    from matplotlib import pyplot

    figure, _ = pyplot.subplots(figsize=(1, 1))
    open_with(steps=1, photos=["a"]).figure("chart", figure)
    assert glued["chart"] is figure
    assert (run / "out" / "01_one.chart.png").read_bytes().startswith(b"\x89PNG")


def test_results_of_a_notebook_that_has_not_run(open_with):
    with pytest.raises(FileNotFoundError, match="make notebook NAME=00_none"):
        open_with(steps=1, photos=["a"]).results_of("00_none")


def test_text_on_what_is_not_compared_says_so_in_other_profiles_than_the_shipped_ones(tmp_path, glued):
    source = tmp_path / "01_one.ipynb"
    write_notebook(source, [("markdown", "{glue:text}`a`, {glue:text}`a_ci`, {glue:text}`b`, {glue:text}`b_n` {x}`c`")])
    for profile in ("quick", "mine"):
        opened = notebook.Study("01_one", profile, tmp_path / profile, tmp_path / "f", source=source)
        opened.record("a", 1.0, (0.5, 1.5))
        opened.record_text("words", "are recorded")
        glued.clear()
        opened.stamp()
        assert glued == ({} if profile == "quick" else dict.fromkeys(("b", "b_n"), "(not measured here)"))


def test_stamp_names_profile_and_version(open_with):
    text = open_with(steps=1, photos=["a"]).stamp().data
    assert "*quick*" in text and store.code_version() in text


@pytest.mark.parametrize("run", ["x", "5", "[]", "{}", '{"profile": 1}', "[" * 100_000])
def test_a_run_that_the_environment_makes_up_is_one_sentence(monkeypatch, run):
    monkeypatch.setenv(notebook.RUN_VARIABLE, run)
    with pytest.raises(notebook.StudyError, match=r"INVKIT_STUDY_RUN describes no run, [^\n]+: unset it"):
        notebook.open("01_one")


@pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000])
def test_results_that_were_damaged_by_hand_are_one_sentence(open_with, tmp_path, text):
    study = open_with(steps=1, photos=["a"])
    (study._results_folder / "00_odd.results.json").parent.mkdir(parents=True, exist_ok=True)
    (study._results_folder / "00_odd.results.json").write_text(text)
    with pytest.raises(notebook.StudyError, match="00_odd.results.json is damaged: delete it, and run 00_odd again"):
        study.results_of("00_odd")
