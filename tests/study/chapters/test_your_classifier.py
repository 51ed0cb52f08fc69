import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import invkit
from invkit.data.images import Data
from invkit.leakage import FACTORS, AtDepth, FromLogits
from invkit.statistics import Interval
from study.chapters import your_classifier as chapter
from study.notebook import Study, source_of

NOTEBOOK = Path(__file__).parents[3] / "notebooks" / "14_your_classifier.ipynb"
N = 6


def block(depth):
    return SimpleNamespace(depth=depth, name=f"layer{depth}", shape=(4, 2, 2), convolutions=depth)


CLASSIFIER = SimpleNamespace(name="mine", classes=3, size=16, channels=3, blocks=[block(k) for k in (1, 2, 3)])


def interval(value, n=N):
    return Interval(value, value - 0.1, value + 0.1, n)


def result(depth, gain=2.0, found=0.5, trained=True):
    images, psnr = torch.rand(N, 3, 16, 16), torch.linspace(10, 12, N)
    return AtDepth(depth, f"layer{depth}", 0.02, images, psnr, interval(gain), interval(found), trained)


@pytest.fixture
def photos():
    images = torch.rand(N, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    return Data(images, torch.zeros(N, dtype=torch.int64), tuple("abcdef"))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study that keeps its results in memory and counts what it shows."""
    made = Study("14_your_classifier", "quick", tmp_path, tmp_path / "work")
    made.shown = []
    monkeypatch.setattr(chapter, "display", made.shown.append)
    return made


def test_cuts_are_rows_by_depth():
    rows = chapter.cut_rows(CLASSIFIER)
    assert list(rows) == [1, 2, 3]
    assert rows[2] == {"block": "layer2", "output": "4 × 2 × 2", "convolutions": 2, "numbers": "0.0208"}


def test_depths_are_rows_with_a_word():
    rows = chapter.depth_rows([result(1), result(2, 0.2, 0.1), result(3, -3, 0.1, trained=False)])
    assert [row["little recovered"] for row in rows.values()] == ["no", "yes", "trained too little"]
    assert rows[1]["over the mean colour, dB"] == "+2.0 [+1.9, +2.1]" and rows[1]["psnr"].value == pytest.approx(11)


def test_what_was_trained_by_the_clock_has_no_tolerance(study, photos):
    chapter.record_leakage(study, CLASSIFIER, photos, [result(1), result(2, 0.2, 0.1)], [result(4), result(9)])
    kept = study._results
    assert kept["gain_first"]["tolerance"] is None and kept["found_deepest"]["tolerance"] is None
    assert kept["gain_lite0_4"] == {"value": 2.0, "ci95": [1.9, 2.1], "unit": "dB", "n": N, "tolerance": 0.5}
    assert kept["found_lite0_9"]["value"] == 50 and kept["found_lite0_9"]["tolerance"] == 15
    assert kept["cut"] == {"text": kept["cut"]["text"], "compared": False} and "after block 2" in kept["cut"]["text"]
    assert kept["network"]["text"] == "mine" and kept["blocks"]["value"] == 3
    assert not study.shown


def test_by_hand_the_answer_and_the_figures_are_shown(study, photos):
    study.profile = chapter.BY_HAND
    chapter.record_leakage(study, CLASSIFIER, photos, [result(1), result(2, 0.2, 0.1)], [])
    chapter.picture_depths(study, photos, [result(1), result(2)])
    answer, figure = study.shown
    assert "after block 2" in answer.data
    assert len(figure.axes) == 3 * chapter.SHOWN and figure.axes[2].get_title() == "block 2"


def test_the_chart_has_both_networks_on_both_axes():
    figure = chapter.leakage_chart(CLASSIFIER, [result(1), result(2)], [result(4), result(9), result(18)], of=19)
    places = [line.lines[0].get_xdata().tolist() for axis in figure.axes for line in axis.containers]
    assert places == 2 * [[1 / 3, 2 / 3], [4 / 19, 9 / 19, 18 / 19]]


def logit_inverter(hours, images=40):
    return SimpleNamespace(size=16, classifier=CLASSIFIER, card={"images": images, "hours": hours})


def from_logits(photos, gain):
    samples = torch.rand(2, N, 3, 16, 16)
    return FromLogits(photos.images, samples, torch.rand(N), interval(gain), interval(0.5), 0.25)


SAME = torch.tensor([[True] * N] * 2 + [[True] * 5 + [False]] + [[True] * N] + [[True] * 3 + [False] * 3])
BY_FACTOR = (torch.rand(len(FACTORS), N, 3, 16, 16), SAME)


def test_logits(study, photos):
    logit_inverters, recovered = {"trained here": logit_inverter(0.002)}, {"trained here": from_logits(photos, 1.5)}
    by_factor = {"trained here": BY_FACTOR}
    chapter.picture_logits(study, photos, logit_inverters, recovered)
    chapter.picture_surgery(study, by_factor, torch.rand(5, 3, 16, 16))
    chapter.record_logits(study, logit_inverters, recovered, by_factor)
    kept = study._results
    assert kept["images"]["value"] == 40 and kept["spread_logits"]["value"] == 25
    assert kept["gain_logits"]["value"] == 1.5 and kept["depth_logits"]["value"] == 3
    assert kept["seen_logits"]["value"] == pytest.approx(500 / 6) and kept["seen_logits"]["tolerance"] is None
    assert kept["beside"]["text"] == "It was trained for 7 seconds." and not kept["of_the_longer"]["text"]
    assert {"logits", "surgery"} == study._figures
    assert chapter.surgery_rows(by_factor)["trained here"]["× 4"] == "50 %"


def test_an_inverter_that_was_trained_for_longer_is_set_beside(study, photos):
    logit_inverters = {"trained here": logit_inverter(0.002), "for longer": logit_inverter(0.8, 15000)}
    recovered = {"trained here": from_logits(photos, -4.0), "for longer": from_logits(photos, -2.0)}
    by_factor = {"trained here": (BY_FACTOR[0], ~SAME), "for longer": BY_FACTOR}
    chapter.picture_logits(study, photos, logit_inverters, recovered)
    chapter.record_logits(study, logit_inverters, recovered, by_factor)
    kept = study._results
    assert kept["gain_logits"]["tolerance"] is None and kept["gain_logits_longer"]["tolerance"] == 0.5
    assert kept["seen_logits_longer"]["value"] == pytest.approx(500 / 6)
    assert kept["beside"]["text"].endswith(
        "The second one below was trained for 48 minutes; samples and surgery are its."
    )
    rows = chapter.logit_rows(logit_inverters, recovered)
    assert rows["for longer"]["images"] == "15,000" and rows["for longer"]["over the mean colour, dB"].startswith(
        "-2.0"
    )
    assert list(chapter.surgery_rows(by_factor)) == list(logit_inverters)


def test_without_images_the_part_on_logits_says_so(study):
    chapter.record_logits(study, {}, {}, {})
    assert study._results["beside"]["text"] == "Without images, this part is left out."
    assert chapter.logit_rows({}, {}) == {} == chapter.surgery_rows({})


def test_minutes_too_few_for_one_inverter_are_told_of_as_those_of_both(monkeypatch):
    def refuse(network, images, minutes):
        raise chapter.TooFewMinutes(minutes, 2.5)

    monkeypatch.setattr(chapter, "images_to_train_on", lambda images, network: torch.zeros(4, 3, 16, 16))
    monkeypatch.setattr(chapter, "try_on_logits", lambda network, images, minutes: None)
    with chapter.share_of(3, "folder:mine") as share:
        assert share == 1.5 and chapter.images_tried(CLASSIFIER, "folder:mine", share).shape == (4, 3, 16, 16)
    monkeypatch.setattr(chapter, "try_on_logits", refuse)
    with pytest.raises(ValueError, match="3 minutes are too few .* minutes=5 "), chapter.share_of(3, "glyphs") as share:
        chapter.images_tried(CLASSIFIER, "glyphs", share)
    with chapter.share_of(3, None) as share:
        assert share == 3 and chapter.images_tried(CLASSIFIER, None, share) is None


def test_the_notebook_tries_the_logits_before_it_trains():
    cells = [source_of(cell) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    (training,) = [cell for cell in cells if "images_tried" in cell]
    assert training.index("images_tried") < training.index("train_inverter")
    assert next(cell for cell in cells if "train_inverter" in cell) == training


TWO_OUTPUTS = """
from torch import nn

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.map, self.few, self.many = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 2), nn.Linear(4, 7)

    def forward(self, x):
        x = self.map(x).mean((2, 3))
        return {"coarse": self.few(x), "fine": self.many(x)}

def network():
    model = Network()
    model.size = 16
    return model
"""


@pytest.mark.parametrize(("output", "classes"), [("coarse", 2), ("fine", 7)])
def test_the_notebook_picks_the_logits_by_its_parameter(tmp_path, monkeypatch, output, classes):
    (tmp_path / "two_outputs.py").write_text(TWO_OUTPUTS)
    monkeypatch.chdir(tmp_path)
    cells = [source_of(cell) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    (load,) = [cell for cell in cells if "load_classifier(" in cell]
    study = SimpleNamespace(device="cpu", table=lambda *rows, **more: None)
    names = {"invkit": invkit, "chapter": chapter, "study": study}
    exec(cells[0], names)
    names |= {"classifier": "two_outputs:network", "output": output}
    exec(load, names)
    assert names["network"].classes == classes
    with pytest.raises(ValueError, match="pick one by output=KEY; dict has 'coarse'"):
        exec(load, names | {"output": None})
