"""A notebook's side of the study."""

import json

import pytest
from helpers import write_notebook

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


def open_with(**parameters):
    """What a notebook sees that papermill gave these parameters."""
    names = {"invkit_study": notebook, **parameters}
    exec("opened = invkit_study.open('01_one')", names)
    return names["opened"]


def test_open_accepts_the_parameters_of_the_notebook(run):
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
def test_open_names_what_is_wrong_with_a_parameter(run, given, error, sentence):
    with pytest.raises(error, match=sentence):
        open_with(**given)


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


def test_record_reaches_results_and_prose(run, glued):
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


def test_an_interval_brings_its_ends_and_its_count(run, glued):
    opened = open_with(steps=3, photos=["a"])
    opened.record("found", Interval(50.0, 25.0, 75.0, 9), unit="%")
    results = json.loads((run / "out" / "01_one.results.json").read_text())
    assert results["found"] == {"value": 50.0, "ci95": [25.0, 75.0], "unit": "%", "n": 9, "tolerance": 2.5}
    assert glued == {"found": "50.0 %", "found_ci": "25.0 to 75.0 %", "found_n": "9"}


def test_what_was_not_measured_is_recorded_as_such(run, glued):
    opened = open_with(steps=3, photos=["a"])
    opened.record("none", None, verdict="not testable")
    result = json.loads((run / "out" / "01_one.results.json").read_text())["none"]
    assert result["value"] is None and result["tolerance"] is None and result["verdict"] == "not testable"
    assert glued["none"] == "not measured"


def test_record_refuses_the_same_id_twice(run, glued):
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


def test_figure_is_glued_and_written(run, glued):
    from matplotlib import pyplot

    figure, _ = pyplot.subplots(figsize=(1, 1))
    open_with(steps=1, photos=["a"]).figure("chart", figure)
    assert glued["chart"] is figure
    assert (run / "out" / "01_one.chart.png").read_bytes().startswith(b"\x89PNG")


def test_results_of_a_notebook_that_has_not_run(run):
    with pytest.raises(FileNotFoundError, match="make notebook NAME=00_none"):
        open_with(steps=1, photos=["a"]).results_of("00_none")


def test_stamp_names_profile_and_version(run):
    text = open_with(steps=1, photos=["a"]).stamp().data
    assert "*quick*" in text and notebook.version() in text
