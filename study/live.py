"""Live: two networks of the study, run by the page itself in the reader's browser.

PyTorch's networks become ONNX, which onnxruntime-web runs as WebAssembly. A page that is opened from a file may not
fetch anything, so that networks and runtime travel as text inside scripts, compressed, and a script is loaded only once
the reader asks for it (``book/_static/live.js``). Where one of both cannot be had, the page is built all the same, and
shows the still picture that it shows without scripts.

    put_beside(Path("build/quick/made/_build/html"))   # what study.pages calls

The runtime is not part of the repository: `RUNTIME` says which one is taken from the registry of npm, and by which hash
it is known. What was fetched and exported once is kept in build/live.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import time
import urllib.request
import warnings
from pathlib import Path

from invkit import store

CACHE = Path("build/live")
ROOT = Path(__file__).parents[1]
CODE = ("invkit/ffi/biggan.py", "invkit/data/glyphs.py", "study/live_glyphs.py", "study/live.py")  # what is exported by
RUNTIME = {  # the newest whose WebAssembly is small; its licence is MIT, its copyright Microsoft's
    "url": "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.14.0.tgz",
    "integrity": "sha512-Kcqf43UMfW8mCydVGcX9OMXI2VN17c0p6XvR7IPSZzBf/6lteBzXHvcEVWDPmCKuGombl997HgLqj91F11DzXw==",
    "script": "package/dist/ort.wasm-core.min.js",
    "binary": "package/dist/ort-wasm-simd.wasm",
}
ANSWER, WHOLE = 4, 90  # seconds: until the registry answers, and for the whole file
INVERTER = "ffi-glyphs-standard"
FIRST = "R"  # the character shown first
FIGURE = '<figure class="touch live" data-live="glyphs"'
OPSET = 17


def put_beside(html: Path) -> None:
    """Write what is live into the folder of compiled pages; a figure that it serves is told how large it is.

    Prints one sentence where the runtime or the exporter is missing; the figure then stays the picture that it is.
    """
    pages = [page for page in html.glob("*.html") if FIGURE in page.read_text(encoding="utf-8")]
    if not pages:
        return
    (html / "_static" / "live_glyphs.png").write_bytes(made_once("glyphs.png", still, networks_key()))
    try:
        scripts = {"runtime": made_once("runtime.js", runtime, RUNTIME["integrity"]), "glyphs": glyphs_script()}
    except (OSError, ImportError) as error:
        print(f"Nothing in the book is computed live, and a picture stands there instead: {error}", file=sys.stderr)
        return
    folder = html / "_static" / "live"
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (folder / f"{name}.js").write_bytes(script)
    megabytes = sum(map(len, scripts.values())) / 1e6
    for page in pages:
        text = page.read_text(encoding="utf-8")
        page.write_text(text.replace(FIGURE, f'{FIGURE} data-megabytes="{megabytes:.0f}"'), encoding="utf-8")


def made_once(name: str, make, key: str) -> bytes:
    """What `make()` returns, from build/live where it was made under the same key before."""
    path = CACHE / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}-{name}"
    if not path.is_file():
        content = make()
        CACHE.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(f".{os.getpid()}")
        half.write_bytes(content)
        half.replace(path)
    return path.read_bytes()


# ---- the runtime -----------------------------------------------------------------------------------------------------


def runtime() -> bytes:
    """The script with onnxruntime-web and its WebAssembly. Raises OSError where it cannot be had, or is another."""
    package = fetch(RUNTIME["url"])
    if f"sha512-{base64.b64encode(hashlib.sha512(package).digest()).decode()}" != RUNTIME["integrity"]:
        raise OSError(f"{RUNTIME['url']} is not the file that study/live.py names: compare its integrity there.")
    with tarfile.open(fileobj=io.BytesIO(package)) as files:
        script, binary = (files.extractfile(RUNTIME[one]).read() for one in ("script", "binary"))
    source = script.decode().partition("//# sourceMappingURL")[0]
    note = "/* ONNX Runtime Web. Copyright (c) Microsoft Corporation. Licensed under the MIT License. */\n"
    return f"{note}{source}\nlive.data.runtime = {json.dumps(as_text(binary))};\n".encode()


def fetch(url: str) -> bytes:
    """The content of an address. Raises OSError, with a sentence, where it does not come in time."""
    parts, until = [], time.monotonic() + WHOLE
    try:
        with urllib.request.urlopen(url, timeout=ANSWER) as answer:
            while part := answer.read(1 << 20):
                parts.append(part)
                if time.monotonic() > until:
                    raise TimeoutError(f"it takes more than {WHOLE} seconds")
    except (OSError, ValueError) as error:
        raise OSError(f"{url} cannot be fetched ({error}); build again where it can be reached.") from error
    return b"".join(parts)


def as_text(content: bytes) -> str:
    """Bytes as text: compressed, then base64."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


# ---- the networks ----------------------------------------------------------------------------------------------------


def networks_key() -> str:
    """What the exported networks follow from: weights, by what the inverter's card says of both, and code."""
    card = store.read_card(INVERTER)
    digest = hashlib.sha256(json.dumps([card["sha256"], card["classifier"]]).encode())
    for file in CODE:
        digest.update((ROOT / file).read_bytes())
    return digest.hexdigest()


def load():
    """The inverter of glyphs, in the form that the exporter takes."""
    import torch

    import invkit

    inverter = invkit.load_inverter(INVERTER)
    inverter.generator.to(memory_format=torch.contiguous_format)
    return inverter


def glyphs_script() -> bytes:
    """The script with both networks and what the sliders need to know. Raises ImportError without the package onnx."""
    return made_once("glyphs.js", _glyphs_script, networks_key())


def _glyphs_script() -> bytes:
    import torch

    from invkit.data.glyphs import CHARACTERS

    label = CHARACTERS.index(FIRST)
    facts = {"characters": CHARACTERS, "label": label, "noise": load().noise_dim}
    facts["factors"] = start(torch.tensor([label]))[0].tolist()
    facts |= {name: as_text(network) for name, network in networks().items()}
    return f"live.data.glyphs = {json.dumps(facts)};\n".encode()


def start(labels):
    """Factors (N, 7), as `live_glyphs.Reader` takes them, in the colours that each of these characters prefers."""
    import torch

    from invkit.data.glyphs import preferred_hue

    hues = preferred_hue(labels.double()).float()[:, None]
    plain = torch.tensor([[0.0, 0.0, 0.7, 0.0]]).expand(len(labels), 4)
    return torch.cat([plain, hues, (hues + 1 / 3) % 1, torch.full_like(hues, 0.5)], 1)


def still() -> bytes:
    """A PNG: glyphs above, their reconstructions below, eight of them."""
    import torch
    from PIL import Image

    from study.live_glyphs import reader
    from study.touch import packed

    inverter = load()
    labels = torch.arange(10, 26, 2, dtype=torch.int32)
    factors = start(labels)
    factors[:, 3] = torch.linspace(-20, 20, 8)
    with torch.no_grad():
        images, logits = reader(inverter)(labels, factors)
        made = inverter.invert(logits, noise=inverter.sample_noise(8))
    picture = packed(torch.cat([images, made]), 8)
    file = io.BytesIO()
    picture.resize([3 * side for side in picture.size], Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()


def networks() -> dict[str, bytes]:
    """ONNX, for one glyph at a time: "read", (label, factors) -> (image, logits); "write", (noise, logits) -> made."""
    import torch

    from study.live_glyphs import reader

    inverter = load()
    torch.onnx.register_custom_op_symbolic("aten::atanh", lambda graph, x: graph.op("Atanh", x), OPSET)
    label = torch.zeros(1, dtype=torch.int32)
    read = _onnx(reader(inverter), (label, start(label)), ["label", "factors"], ["image", "logits"])
    given = (torch.zeros(1, inverter.noise_dim), torch.zeros(1, inverter.classifier.classes))
    with doubled_plainly():
        write = _onnx(inverter.generator, given, ["noise", "logits"], ["made"])
    return {"read": read, "write": write}


@contextlib.contextmanager
def doubled_plainly():
    """In this context, generators enlarge a map and convolve it in two steps, which the exporter knows.

    Otherwise `biggan.double_and_convolve` gets the same numbers from the small map.
    """
    from torch.nn import functional as F

    from invkit.ffi import biggan

    def double_and_convolve(x, weight, bias):
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, bias, padding=1)

    usual, biggan.double_and_convolve = biggan.double_and_convolve, double_and_convolve
    try:
        yield
    finally:
        biggan.double_and_convolve = usual


def _onnx(network, given, inputs, outputs) -> bytes:
    """A network as ONNX, for inputs of the shapes given."""
    import onnx  # noqa: F401 -- what the exporter would miss later, in more words
    import torch

    file = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of the checks of inputs, which are left out of the graph
        torch.onnx.export(
            network, given, file, dynamo=False, opset_version=OPSET, input_names=inputs, output_names=outputs
        )
    return file.getvalue()
