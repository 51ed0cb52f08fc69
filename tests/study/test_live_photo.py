"""A photo of the reader's own in his browser: read as the library reads it, inverted as by PyTorch, sent nowhere."""

import base64
import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import live_page_with_networks
from PIL import Image
from torch import nn

from invkit import data, metrics, store
from invkit.data.images import fit_square
from invkit.data.photos import read_photo
from study import browser, live_photo
from study.live_onnx import as_onnx

REPOSITORY = Path(__file__).parents[2]
FLOATS = """(() => { const { photo, made } = document.querySelector("figure.live").result;
    const text = (numbers) => { const bytes = new Uint8Array(Float32Array.from(numbers).buffer); let found = "";
        for (let at = 0; at < bytes.length; at += 1 << 14) {
            found += String.fromCharCode(...bytes.subarray(at, at + (1 << 14))); }
        return btoa(found); };
    return [photo, ...made].map(text); })()"""
DROP = """(() => { const given = new DataTransfer(); given.items.add(new File(["no photo"], "notes.txt"));
    const drop = new DragEvent("drop", { dataTransfer: given, bubbles: true, cancelable: true });
    return document.querySelector("figure.live").dispatchEvent(drop); })()"""


@pytest.mark.parametrize("eight_bits", [False, True])
def test_weights_are_stored_as_what_they_were_rounded_to(eight_bits):
    onnx = pytest.importorskip("onnx", reason="The package onnx is missing: install requirements.txt.")
    from onnx.reference import ReferenceEvaluator

    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 64, 3)).eval()
    x = torch.rand(1, 3, 8, 8)
    plain = as_onnx(network, (x,), ["x"], ["y"])
    store.round_in_place(network.state_dict(), eight_bits)
    small = as_onnx(network, (x,), ["x"], ["y"])
    found = ReferenceEvaluator(onnx.load_from_string(small)).run(None, {"x": x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), network(x).detach(), rtol=1e-4, atol=1e-4)
    assert len(plain) - len(small) > (2.8 if eight_bits else 1.9) * 16 * 64 * 9


# ---- in the browser --------------------------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(
    browser.executable() is None,
    reason="There is no Chromium here to compute in: install chromium, or put one on the PATH.",
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The address of a page with the networks beside it."""
    return live_page_with_networks(tmp_path_factory.mktemp("live") / "html", "photo", "webp")


@pytest.fixture(scope="module")
def inverter():
    return live_photo.rounded_inverter()


@pytest.fixture(scope="module")
def chromium():
    with browser.Browser() as one:
        yield one


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A photo larger than the network's, as a telephone held upright stores it: lying, with a note in the Exif."""
    free = data.load("photos", size=500)
    pixels = (255 * free.images[free.names.index("rocket")]).round().byte().permute(1, 2, 0).numpy()
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    path = tmp_path_factory.mktemp("own") / "own.jpg"
    Image.fromarray(pixels[:377]).save(path, quality=95, exif=exif)
    return path


def patiently(chromium, script):
    """Wait as `until` does, but nine times as long: a busy machine computes at a tenth of its speed."""
    for _ in range(8):
        with contextlib.suppress(TimeoutError):
            return chromium.until(script)
    return chromium.until(script)


@needs_browser
@pytest.mark.parametrize("width", [1300, 390])
def test_a_photo_of_ones_own_is_read_back_as_pytorch_does_and_stays_in_the_page(page, chromium, inverter, own, width):
    chromium.open(page.as_uri(), width=width)
    scripts = (page.parent / "_static" / "live" / f"{name}.js" for name in ("processor", "photo"))
    size = sum(path.stat().st_size for path in scripts) / 1e6
    told = chromium.evaluate("document.querySelector('.touch-button').textContent")
    assert f"loads {size:.0f} MB; some seconds" in told and size < 25
    assert not chromium.evaluate("document.querySelector('script[src*=\"live/\"]')")  # not before it is asked for
    (chromium.tap if width < 600 else chromium.click)(".touch-button")
    patiently(chromium, "document.querySelector('figure.live').dataset.ready")
    chromium.press("ArrowRight")  # the first photo of the book has the focus
    assert chromium.evaluate("document.querySelector('.touch-choices :checked').value") == "1"
    camera = chromium.evaluate("getComputedStyle(document.querySelector('.live-camera')).display")
    assert camera == ("block" if width < 600 else "none")

    chromium.upload(".live-file input", own)
    patiently(chromium, "document.querySelector('figure.live').dataset.done === 'own.jpg'")
    photo, *made = (
        torch.from_numpy(np.frombuffer(base64.b64decode(text), np.float32).copy()).view(1, 3, 224, 224)
        for text in chromium.evaluate(FLOATS)
    )
    expected = fit_square(read_photo(own)[None], 224)
    assert (photo - expected).abs().max() < 0.03 and (photo - expected).abs().mean() < 0.003  # two decoders of JPEG
    said = chromium.evaluate("[...document.querySelectorAll('.live-told')].map((one) => one.textContent)")
    for depth, found, words in zip(live_photo.DEPTHS, made, said[1:], strict=True):
        with torch.no_grad():
            again = inverter.reconstruct(photo, depth)
        torch.testing.assert_close(found, again, rtol=0, atol=1e-3)
        assert abs(float(words.split(" dB")[0]) - metrics.psnr(again, photo).item()) < 0.11
        assert f"{inverter.represent(photo, depth).numel():,} numbers" in words
    assert not chromium.evaluate("document.querySelector('.touch-choices :checked')")

    assert chromium.evaluate(DROP) is False  # the browser does not go to what was dropped
    chromium.until("document.querySelector('.touch-told').textContent.includes('choose a JPEG or a PNG')")
    assert chromium.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert chromium.messages == []
    asked = {url.partition(":")[0] for url in chromium.requests}
    assert "file" in asked and asked <= {"file", "blob", "data"}  # nothing has left the page


@needs_browser
def test_without_scripts_the_picture_is_there(page, chromium):
    chromium.open(page.as_uri(), scripts=False)
    chromium._ask("Emulation.setScriptExecutionDisabled", value=False)  # for the questions below; none has run
    assert chromium.evaluate("document.images[0].naturalWidth") > 700
    assert chromium.evaluate("document.querySelectorAll('button, input').length") == 0
