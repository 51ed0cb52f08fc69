"""A photo of the reader's own on the graphics processor, where there is one, and on the processor where there is none.

The networks are those of the page as far as nine convolutions, for images of 32 pixels: the graphics processor here is
one that the processor imitates, and very slow.
"""

import json
import os
import shutil

import pytest
import torch
from helpers import live_page_with_networks

from study import browser, live_photo

SIDE, DEPTHS = 32, (2, 4)
FIGURE = "document.querySelector('figure.live')"
BUTTON = "document.querySelector('.touch-button').textContent"
TOLD = "document.querySelector('.touch-told').textContent"
NO_GRAPHICS = {
    "without WebGPU": "delete Navigator.prototype.gpu",
    "no adapter": "GPU.prototype.requestAdapter = async () => null",
    "an adapter that is imitated": "GPU.prototype.requestAdapter = async () => ({ info: { isFallbackAdapter: true } })",
    "a refusal": "GPU.prototype.requestAdapter = async () => { throw new Error('no') }",
}
REAL = "Object.defineProperty(GPUAdapterInfo.prototype, 'isFallbackAdapter', { get: () => false });"
AN_ADAPTER = """GPU.prototype.requestAdapter = async () => ({ info: {}, features: new Set(), limits: {},
    requestDevice: async () => { throw new Error("no device") } });"""
# A runtime that finds zeros, and does something before it has a network, and before each run of one. The numbers that a
# network finds follow from the order in which they are made: from the first depth, and back, and from the second.
RUNTIME = """live.data.jspi = {}; window.made = window.runs = 0; const counts = [4096, 3072, 1536, 4096];
    window.ort = { env: { wasm: {} }, Tensor: function () {}, InferenceSession: { create: async () => { %s;
        const count = counts[window.made++];
        return { outputNames: ["y"], run: async () => { %s; return { y: { data: new Float32Array(count) } }; } };
    } } };"""
FAILURES = {  # {what fails: the script with the runtime, or None where it is missing; what its trial asks for}
    "no runtime": (None, {}),
    "no session": (RUNTIME % ("throw new Error('no session')", ""), {}),
    "the first run": (RUNTIME % ("", "throw new Error('the device is lost')"), {}),
    "other numbers": (RUNTIME % ("", ""), {}),
    "too slow": (RUNTIME % ("", ""), {"within": 2, "seconds": 0}),
    "after the trial": (RUNTIME % ("", "if (++window.runs > 8) throw new Error('the device is lost')"), {"within": 2}),
}

needs_browser = pytest.mark.skipif(
    browser.executable() is None,
    reason="There is no Chromium here to compute in: install chromium, or put one on the PATH.",
)
pytestmark = needs_browser


@pytest.fixture(scope="module")
def inverter():
    found = live_photo.rounded_inverter()
    found.size = SIDE
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory, inverter):
    """The address of a page with small networks beside it."""
    found = live_page_with_networks(tmp_path_factory.mktemp("live") / "html", "photo", "webp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_photo, "DEPTHS", DEPTHS)
        script = live_photo.script_of(inverter, seconds=1e6)
    (found.parent / "_static" / "live" / "photo.js").write_bytes(script)
    return found


def computed(chromium, seconds=600):
    """Press the button of the page, and wait for the photo and what is read back of it."""
    chromium.click(".touch-button")
    for patience in range(seconds // 20, -1, -1):
        try:
            chromium.until(f"{FIGURE}?.dataset.done || {TOLD}.includes('The picture stays')")
            break
        except TimeoutError:
            if not patience:
                raise
    found = chromium.evaluate(f"(({{ photo, made }}) => [photo, ...made].map((one) => [...one]))({FIGURE}.result)")
    return [torch.tensor(one).view(1, 3, SIDE, SIDE) for one in found]


@torch.no_grad()
def read_back(inverter, photo, depth):
    """What PyTorch reads back, with the feedback of the inverter's card."""
    forth = live_photo.Forth(inverter.classifier, 0, depth).eval()
    back = live_photo.Back(inverter.chain, 0, depth).eval()
    steps, rate = inverter.card["feedback"].get(str(depth), (0, 1.0))
    first = made = back(forth(photo))
    for _ in range(steps):
        made = (made + rate * (first - back(forth(made)))).clamp(0, 1)
    return made


def check(chromium, inverter):
    """What the page finds is what PyTorch finds, to a thousandth."""
    photo, *made = computed(chromium)
    for depth, found in zip(DEPTHS, made, strict=True):
        torch.testing.assert_close(found, read_back(inverter, photo, depth), rtol=0, atol=1e-3)
    assert {url.partition(":")[0] for url in chromium.requests} <= {"file", "blob", "data"}


def loaded(chromium):
    """The scripts that the page has loaded since it was asked."""
    return {url.rpartition("/")[2] for url in chromium.requests if "/live/" in url}


@pytest.mark.parametrize("before", NO_GRAPHICS.values(), ids=NO_GRAPHICS)
def test_without_a_graphics_processor_the_processor_computes(page, inverter, before):
    with browser.Browser(before=before) as chromium:
        chromium.open(page.as_uri())
        assert chromium.evaluate(BUTTON).startswith("Compute it here (loads 22 MB; some seconds")
        check(chromium, inverter)
        assert ", on the processor, in " in chromium.evaluate(TOLD)
        assert loaded(chromium) == {"photo.js", "processor.js"}
        assert chromium.messages == []


def check_failure(page, inverter):
    with browser.Browser(before=AN_ADAPTER) as chromium:
        chromium.open(page.as_uri())
        chromium.until(f"{BUTTON}.startsWith('Compute it here on the graphics processor (loads 23 MB; some seconds')")
        check(chromium, inverter)
        assert ", on the processor, as the graphics processor failed, in " in chromium.evaluate(TOLD)
        assert {"photo.js", "processor.js"} <= loaded(chromium)
        return chromium.messages


@pytest.mark.parametrize(("runtime", "trial"), FAILURES.values(), ids=FAILURES)
def test_where_the_graphics_processor_fails_the_processor_computes(page, inverter, tmp_path, runtime, trial):
    copy = shutil.copytree(page.parent, tmp_path / "html")
    (script := copy / "_static" / "live" / "jspi.js").unlink()
    if runtime:
        script.write_text(runtime)
    networks = copy / "_static" / "live" / "photo.js"
    begin, _, facts = networks.read_text().partition(" = ")
    facts = json.loads(facts.rstrip(";\n"))
    facts["trial"] |= trial
    networks.write_text(f"{begin} = {json.dumps(facts)};\n")
    messages = check_failure(copy / page.name, inverter)
    assert messages == [] or runtime is None  # the browser says that the file is missing


def test_where_the_graphics_processor_gives_no_device_the_processor_computes(page, inverter):
    check_failure(page, inverter)


@pytest.mark.skipif(
    "INVKIT_WEBGPU" not in os.environ, reason="It takes minutes without a graphics processor: `make test-book` runs it."
)
@pytest.mark.parametrize(("runtime", "before"), [("jspi", ""), ("asyncify", "delete WebAssembly.Suspending")])
def test_webgpu_computes_what_pytorch_computes(page, inverter, runtime, before):
    with browser.Browser(browser.WEBGPU, REAL + before) as chromium:
        chromium.open(page.as_uri())
        if not chromium.evaluate("(async () => !!(await navigator.gpu?.requestAdapter()))()"):
            pytest.skip("This Chromium imitates no graphics processor: Debian's does.")
        chromium.until(f"{BUTTON}.startsWith('Compute it here on the graphics processor')")
        check(chromium, inverter)
        assert ", on the graphics processor, in " in chromium.evaluate(TOLD)
        assert loaded(chromium) == {"photo.js", f"{runtime}.js"}
        assert chromium.messages == []
