"""Live: networks of the study, run by the page itself in the reader's browser.

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
import gzip
import hashlib
import importlib
import io
import json
import os
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CACHE = Path("build/live")
ROOT = Path(__file__).parents[1]
# {what a figure names as its kind: the module with its KIND}; book/_static/live_<kind>.js shows it.
KINDS = {"glyphs": "study.live_glyphs", "photo": "study.live_photo"}
RUNTIME = {  # the newest whose WebAssembly is small; its licence is MIT, its copyright Microsoft's
    "url": "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.14.0.tgz",
    "integrity": "sha512-Kcqf43UMfW8mCydVGcX9OMXI2VN17c0p6XvR7IPSZzBf/6lteBzXHvcEVWDPmCKuGombl997HgLqj91F11DzXw==",
    "script": "package/dist/ort.wasm-core.min.js",
    "binary": "package/dist/ort-wasm-simd.wasm",
}
ANSWER, WHOLE = 4, 90  # seconds: until the registry answers, and for the whole file
FIGURE = '<figure class="touch live" data-live="{}"'


@dataclass(frozen=True)
class Kind:
    """What a page can compute.

    key: what its script and its picture follow from, to know them again; see `key_of`.
    script: makes the script with its networks, which is loaded when asked for. Raises ImportError without onnx.
    still: makes the picture that stands in the page until then, as _static/live_<name of the kind>.<picture>.
    """

    key: Callable[[], str]
    script: Callable[[], bytes]
    still: Callable[[], bytes]
    picture: str = "png"


def put_beside(html: Path) -> None:
    """Write what is live into the folder of compiled pages; a figure that it serves is told how large it is.

    Prints one sentence where the runtime or the exporter is missing; the figure then stays the picture that it is.
    """
    texts = {page: page.read_text(encoding="utf-8") for page in html.glob("*.html")}
    asked = [name for name in KINDS if any(FIGURE.format(name) in text for text in texts.values())]
    kinds = {name: importlib.import_module(KINDS[name]).KIND for name in asked}
    for name, kind in kinds.items():
        picture = made_once(f"{name}.{kind.picture}", kind.still, kind.key())
        (html / "_static" / f"live_{name}.{kind.picture}").write_bytes(picture)
    if not kinds:
        return
    try:
        scripts = {"runtime": made_once("runtime.js", runtime, RUNTIME["integrity"])}
        scripts |= {name: made_once(f"{name}.js", kind.script, kind.key()) for name, kind in kinds.items()}
    except (OSError, ImportError) as error:
        print(f"Nothing in the book is computed live, and a picture stands there instead: {error}", file=sys.stderr)
        return
    folder = html / "_static" / "live"
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        (folder / f"{name}.js").write_bytes(script)
    for page, text in texts.items():
        told = text
        for name in kinds:
            megabytes = (len(scripts["runtime"]) + len(scripts[name])) / 1e6
            told = told.replace(FIGURE.format(name), f'{FIGURE.format(name)} data-megabytes="{megabytes:.0f}"')
        if told != text:
            page.write_text(told, encoding="utf-8")


def made_once(name: str, make, key: str) -> bytes:
    """What `make()` returns, from build/live where it was made under the same key before; others go."""
    path = CACHE / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}-{name}"
    if not path.is_file():
        content = make()
        CACHE.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(f".{os.getpid()}")
        half.write_bytes(content)
        half.replace(path)
        for older in set(CACHE.glob(f"*-{name}")) - {path}:
            older.unlink(missing_ok=True)
    return path.read_bytes()


def key_of(facts: object, code: tuple[str, ...]) -> str:
    """What exported networks follow from: facts, as JSON has them, on their weights, and files of code."""
    digest = hashlib.sha256(json.dumps(facts).encode())
    for file in ("study/live.py", "study/live_onnx.py", *code):
        digest.update((ROOT / file).read_bytes())
    return digest.hexdigest()


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


# ---- scripts and pictures --------------------------------------------------------------------------------------------


def as_text(content: bytes) -> str:
    """Bytes as text: compressed, then base64."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def as_script(kind: str, facts: dict[str, object]) -> bytes:
    """The script that hands facts, as JSON has them, to what shows a kind."""
    return f"live.data.{kind} = {json.dumps(facts)};\n".encode()


def as_file(picture, kind: str = "PNG", **options: object) -> bytes:
    """A Pillow image as a file of one of its formats, with the options of that."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
