"""What the book computes in the reader's browser: the same as PyTorch; and what stands there without it."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import live_page, live_page_with_networks

from invkit.data import glyphs
from study import browser, live, live_glyphs, live_runtime

REPOSITORY = Path(__file__).parents[2]
STATIC = REPOSITORY / "book" / "_static"


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    monkeypatch.setattr(live, "CACHE", REPOSITORY / "build" / "live")


@pytest.fixture(scope="module")
def inverter():
    return live_glyphs.load()


def factors_of(n):
    return torch.tensor([[0.1, -0.05, 0.6, 15.0, 0.2, 0.7, -0.4]]).repeat(n, 1)


def test_the_reader_draws_and_reads_as_the_study_does(inverter):
    drawn = glyphs.draw(8, seed=3)
    factors = factors_of(8)
    factors[:, :4] = torch.stack([drawn.factors[name] for name in ("x", "y", "size", "rotation")], 1)
    ink, ground = live_glyphs.colours(factors)
    plain = {"font": live_glyphs.FONT, "slant": 0, "weight": 0, "stroke": 0, "ink": ink, "ground": ground}
    expected = glyphs.draw(8, seed=3, **plain).images
    with torch.no_grad():
        images, logits = live_glyphs.reader(inverter)(drawn.labels.int(), factors)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(logits, inverter.represent(expected), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("content", "sentence"), [(None, "cannot be fetched"), (b"another", "compare its integrity")])
def test_without_the_runtime_the_picture_stays(tmp_path, monkeypatch, capsys, content, sentence):
    package = tmp_path / "package.tgz"
    if content:
        package.write_bytes(content)
    runtime = dataclasses.replace(live_runtime.RUNTIMES["processor"], url=package.as_uri())
    monkeypatch.setitem(live_runtime.RUNTIMES, "processor", runtime)
    monkeypatch.setattr(live, "CACHE", tmp_path / "cache")
    page = live_page(tmp_path / "html", "glyphs")
    live.put_beside(page.parent)
    assert sentence in (told := capsys.readouterr().err) and told.count("\n") == 1
    assert "data-processor" not in page.read_text()
    assert (page.parent / "_static" / "live_glyphs.png").stat().st_size > 1000
    assert not (page.parent / "_static" / "live").exists()


def test_without_the_runtimes_for_webgpu_the_page_knows_of_the_processor_alone(tmp_path, monkeypatch, capsys):
    def made(name, make, key):
        if name in ("jspi.js", "asyncify.js"):
            raise OSError("no registry")
        return bytes(2_000_000)

    monkeypatch.setattr(live, "made_once", made)
    page = live_page(tmp_path / "html", "photo", "webp")
    live.put_beside(page.parent)
    assert capsys.readouterr().err == "What is computed live is so on the processor alone: no registry\n"
    assert 'data-processor="4" data-time' in page.read_text()
    assert sorted(path.name for path in (page.parent / "_static" / "live").iterdir()) == ["photo.js", "processor.js"]


def test_what_was_made_under_another_key_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(live, "CACHE", tmp_path)
    assert live.made_once("a.js", lambda: b"first", "1") == live.made_once("a.js", lambda: b"never", "1") == b"first"
    live.made_once("b.js", lambda: b"another", "1")
    assert live.made_once("a.js", lambda: b"second", "2") == b"second"
    assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"another", b"second"]


def test_every_script_has_less_than_200_lines():
    scripts = list(STATIC.glob("live*.js"))
    assert len(scripts) == 5 and all(path.read_text().count("\n") < 200 for path in scripts)


# ---- in the browser --------------------------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(
    browser.executable() is None,
    reason="There is no Chromium here to compute in: install chromium, or put one on the PATH.",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The address of a page with the networks beside it."""
    return live_page_with_networks(tmp_path_factory.mktemp("live") / "html", "glyphs")


@pytest.fixture(scope="module")
def chromium():
    with browser.Browser() as one:
        yield one


def result(chromium):
    return chromium.evaluate("document.querySelector('figure.live').result")


def changed(chromium, before, name):
    """Wait until the page has computed with another value of `name`; its result."""
    told = json.dumps(before[name])
    chromium.until(f"JSON.stringify(document.querySelector('figure.live').result.{name}) !== JSON.stringify({told})")
    return result(chromium)


def check(found, inverter):
    """What the page found is what PyTorch finds of the same factors and noise, to a thousandth."""
    with torch.no_grad():
        image, logits = live_glyphs.reader(inverter)(
            torch.tensor([found["label"]], dtype=torch.int32), torch.tensor([found["factors"]])
        )
        made = inverter.invert(found["factor"] * logits, noise=torch.tensor([found["noise"]]))
    for name, expected in (("image", image), ("logits", logits), ("made", made)):
        torch.testing.assert_close(torch.tensor(found[name]), expected.flatten(), rtol=0, atol=1e-3)


@needs_browser
@pytest.mark.parametrize("width", [1300, 390])
def test_the_page_computes_what_pytorch_computes(page, chromium, inverter, width):
    chromium.open(page.as_uri(), width=width)
    press_on = chromium.tap if width < 600 else chromium.click
    scripts = (page.parent / "_static" / "live" / f"{name}.js" for name in ("processor", "glyphs"))
    size = sum(path.stat().st_size for path in scripts) / 1e6
    assert size <= 15
    assert f"loads {size:.0f} MB" in chromium.evaluate("document.querySelector('.touch-button').textContent")
    assert not chromium.evaluate("document.querySelector('script[src*=\"live/\"]')")  # not before it is asked for
    press_on(".touch-button")
    chromium.until("document.querySelector('figure.live').dataset.ready")
    check(first := result(chromium), inverter)
    chromium.press("ArrowRight")  # the first slider has the focus: another character
    check(second := changed(chromium, first, "label"), inverter)
    assert second["label"] == first["label"] + 1
    press_on(".live-sliders .touch-slider:nth-child(5) input", x=0.9)
    check(third := changed(chromium, second, "factors"), inverter)
    assert third["factors"][3] > 15
    press_on(".live-sliders .touch-slider:last-child input", x=0.25)
    check(fourth := changed(chromium, third, "factor"), inverter)
    assert fourth["factor"] < 0.7
    press_on(".touch-made .touch-button")
    fifth = changed(chromium, fourth, "noise")
    check(fifth, inverter)
    assert fifth["logits"] == fourth["logits"] and fifth["made"] != fourth["made"]
    assert chromium.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert chromium.messages == []


@needs_browser
def test_without_scripts_and_without_the_networks_the_picture_is_there(page, chromium, tmp_path):
    chromium.open(page.as_uri(), scripts=False)
    chromium._ask("Emulation.setScriptExecutionDisabled", value=False)  # for the questions below; none has run
    assert chromium.evaluate("document.images[0].naturalWidth") > 300
    assert chromium.evaluate("document.querySelectorAll('button, input').length") == 0

    copy = shutil.copytree(page.parent, tmp_path / "html")
    (copy / "_static" / "live" / "glyphs.js").unlink()
    chromium.open((copy / page.name).as_uri())
    chromium.click(".touch-button")
    chromium.until("document.querySelector('.touch-told').textContent.includes('The picture stays')")
    assert chromium.evaluate("document.images[0].naturalWidth") > 300
