import base64
import io
import json
import re
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image
from torch import nn

import invkit
from invkit import data, dci, ffi, leakage, report, report_page
from invkit.cli import main
from invkit.dci import synthetic
from invkit.dci.training import Schedule


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.Flatten()]
    return invkit.Classifier(nn.Sequential(*layers, nn.Linear(64, 5)), "<my> network", size=16)


@pytest.fixture(scope="module")
def inverters(classifier):
    images = data.load("glyphs", split="inverter", n=16, size=16).images
    blocks = dci.invert_classifier(
        classifier, synthetic.draw_pool(4, 16), depth=2, schedule=Schedule(1, 1), progress=False
    )
    small = {"channels": [8, 8, 8], "hidden": 8}
    logits = ffi.train_inverter(
        classifier, images, steps=2, batch=4, objective="regression", generator=small, progress=False
    )
    return blocks, logits


@pytest.fixture
def quickly(monkeypatch, classifier, inverters):
    """A report without training: of the small inverters above, which also stand for the reference."""
    calls = []

    def train(network, images=None, **settings):
        calls.append(settings)
        return inverters[images is not None]

    def reference(photos):
        return leakage.measure_depths(inverters[0], photos, [1, 2])

    monkeypatch.setattr(report, "train_inverter", train)
    monkeypatch.setattr(leakage, "measure_reference", reference)
    monkeypatch.setattr(report, "load_classifier", lambda name, **more: calls.append(more) or classifier)
    monkeypatch.setattr(report, "images_to_train_on", lambda images, network: torch.zeros(4, 3, 16, 16))
    monkeypatch.setattr(report, "try_on_logits", lambda network, images, minutes: None)
    return calls


class Page(HTMLParser):
    """The tags of a page that are open, checked to close in order; its images and its links."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "path", "circle", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "circle"):
            assert self.open.pop() == tag


def test_a_report_without_images(tmp_path, quickly, classifier):
    numbers = report.write_report(classifier, tmp_path / "out", minutes=3, progress=False)
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not page.open and page.sources and all(source.startswith("data:image/") for source in page.sources)
    assert "&lt;my&gt; network" in text and "<my>" not in text and "$" not in text and "logits give away" not in text
    assert json.loads((tmp_path / "out/report.json").read_text()) == numbers
    assert [one["depth"] for one in numbers["depths"]] == [1, 2] and len(numbers["cuts"]) == 3
    assert numbers["photos"].startswith("25 bundled photos") and quickly[0]["minutes"] == 3
    assert "3 minutes on synthetic images" in text
    again = invkit.load_inverter(tmp_path / "out/zero-shot", classifier=classifier)
    assert again.depths == [1, 2] and not (tmp_path / "out/logits").exists()


def test_a_report_with_images(tmp_path, quickly, classifier):
    numbers = report.write_report(classifier, tmp_path / "out", images="glyphs", minutes=3, depths=[2], progress=False)
    text = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert not Page(text).open and "What the logits give away" in text and "1.5 minutes on synthetic images" in text
    assert "A second inverter, trained for 1.5 minutes on" in text
    assert [settings["minutes"] for settings in quickly] == [1.5, 1.5]
    assert [one["depth"] for one in numbers["depths"]] == [2]
    assert numbers["logits"].keys() == {"psnr", "gain", "found", "spread"}
    assert numbers["logits"]["found"]["n"] == 25 and numbers["photos"].startswith("25 images of glyphs")
    assert (tmp_path / "out/logits/card.json").is_file()


def test_a_file_in_place_of_the_folder_is_told_of_before_training(tmp_path, quickly, classifier):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="out is a file: name a folder for the results"):
        report.write_report(classifier, tmp_path / "out", progress=False)
    with pytest.raises(ValueError, match="minutes must be above 0"):
        report.write_report(classifier, tmp_path / "new", minutes=0, progress=False)
    assert not quickly and (tmp_path / "out").read_text() == "mine" and not (tmp_path / "new").exists()


def test_photos_that_cannot_be_had_are_told_of_before_training(tmp_path, quickly, classifier, monkeypatch):
    def none(*arguments, **settings):
        raise ValueError("no photos")

    monkeypatch.setattr(leakage, "photos_of", none)
    with pytest.raises(ValueError, match="no photos"):
        report.write_report(classifier, tmp_path / "out", progress=False)
    monkeypatch.undo()
    monkeypatch.setattr(report, "train_inverter", lambda *arguments, **settings: pytest.fail("trained"))
    (tmp_path / "photos").mkdir()
    for i in range(10):  # of which two are for training and two for testing
        Image.new("RGB", (16, 16), (40 * i, 0, 0)).save(tmp_path / f"photos/{i}.png")
    with pytest.raises(TypeError, match=r"Images to train on .* not [1-3] of folder:.* parts them .* add some"):
        report.write_report(classifier, tmp_path / "out", images=f"folder:{tmp_path / 'photos'}", progress=False)
    assert not quickly


def test_minutes_that_are_too_few_for_half_of_a_report_are_told_of_as_those_of_the_whole(
    tmp_path, quickly, classifier, monkeypatch
):
    def train(network, images=None, **settings):
        raise invkit.fit.TooFewMinutes(settings["minutes"], 2.5)

    monkeypatch.setattr(report, "train_inverter", train)
    for images, words in ((None, "3 minutes are .* minutes=2.5 "), ("glyphs", "3 minutes are .* minutes=5 ")):
        with pytest.raises(invkit.fit.TooFewMinutes, match=words):
            report.write_report(classifier, tmp_path / "out", images=images, minutes=3, progress=False)


def test_minutes_that_are_too_few_for_the_logits_alone_are_told_of_before_anything_is_trained(
    tmp_path, quickly, classifier, monkeypatch
):
    tried = []

    def refuse(network, images, minutes):
        tried.append((network, tuple(images.shape), minutes))
        raise invkit.fit.TooFewMinutes(minutes, 2.5)

    monkeypatch.setattr(report, "try_on_logits", refuse)
    with pytest.raises(invkit.fit.TooFewMinutes, match="3 minutes are .* minutes=5 "):
        report.write_report(classifier, tmp_path / "out", images="glyphs", minutes=3, progress=False)
    assert tried == [(classifier, (4, 3, 16, 16), 1.5)] and not quickly and not (tmp_path / "out").exists()
    report.write_report(classifier, tmp_path / "out", minutes=3, progress=False)  # without images there are no logits
    assert len(tried) == 1 and len(quickly) == 1


def test_a_report_that_fails_writes_nothing_and_leaves_the_old_one(tmp_path, quickly, classifier, monkeypatch):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=r"inverted at depths \[1, 2\], not \[9\]"):
        report.write_report(classifier, out, depths=[9], progress=False)
    assert not out.exists()
    report.write_report(classifier, out, progress=False)
    before = (out / "report.html").read_bytes()

    def fail(*arguments):
        raise ValueError("no page")

    monkeypatch.setattr(report_page, "page_of", fail)
    with pytest.raises(ValueError, match="no page"):
        report.write_report(classifier, out, progress=False)
    assert (out / "report.html").read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json", "zero-shot"]


def test_the_command(tmp_path, quickly, capsys):
    assert main(["report", "lite0", "--minutes", "0.1", "--depths", "2", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^2 .* dB +\d+ %$", said, re.MULTILINE) and said.endswith("out/report.html\n")
    assert quickly[1]["minutes"] == 0.1 and (tmp_path / "out/report.json").is_file()


@pytest.mark.parametrize(("given", "taken"), [("scores", "scores"), ("1", 1)])
def test_the_command_picks_one_of_several_outputs(tmp_path, quickly, given, taken):
    main(["report", "lite0", "--output", given, "--depths", "2", "--out", str(tmp_path / "out")])
    assert quickly[0]["output"] == taken


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["resnet18"], "invkit: There is no classifier 'resnet18'"),
        (["lite0", "--minutes", "0"], "invkit: minutes must be above 0"),
        (["lite0", "--images", "folder:nowhere"], "invkit: There is no folder nowhere"),
        (["lite0", "--weights", "x.pth"], "invkit: There is no file of weights x.pth"),
    ],
)
def test_errors_of_the_command_are_sentences(tmp_path, capsys, arguments, words):
    assert main(["report", *arguments, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(words) and said.err.count("\n") == 1 and not (tmp_path / "out").exists()


def result(depth, gain, found, trained=True):
    intervals = [invkit.statistics.Interval(value, value, value, 25) for value in (gain, found)]
    return leakage.AtDepth(depth, f"layer{depth}", 0.5, torch.zeros(1), torch.zeros(1), *intervals, trained)


def test_sentences():
    some = [result(1, 6.25, 1.0), result(4, -0.5, 0.08)]
    said = report_page.leak_sentence(some)
    assert "From the output of block 1 (layer1), reconstructions are 6.2 dB better than" in said
    assert "block 4 (layer4), reconstructions are 0.5 dB worse than" in said and "8 % of them" in said
    assert report_page.cut_sentence(some).startswith("Split after block 4 (layer4)")
    assert "none of these depths" in report_page.cut_sentence(some[:1])
    assert "more minutes" in report_page.cut_sentence([result(1, -5, 0.04, trained=False)])
    two = [result(depth, -5, 0.04, trained=False) for depth in (1, 2)]
    assert report_page.cut_sentence(two).startswith("From blocks 1, 2 the inverter does worse")
    assert "at most 20 %" in report_page.rule_sentence(25) and "at most 40 %" in report_page.rule_sentence(5)
    assert report_page.leak_sentence(some[:1]).count("reconstructions are") == 1


def test_a_large_image_is_shrunk_and_a_small_one_keeps_its_pixels():
    large, small = (torch.rand(3, side, side) for side in (500, 32))
    opened = {}
    for name, image in {"large": large, "small": small}.items():
        kind, _, content = report_page._bytes(image).partition(";base64,")
        opened[name] = kind, Image.open(io.BytesIO(base64.b64decode(content))).size
    assert opened == {"large": ("data:image/jpeg", (224, 224)), "small": ("data:image/png", (32, 32))}
    assert report_page.is_small(small) and not report_page.is_small(large)
