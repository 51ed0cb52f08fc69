"""Live: networks of the study, run by the page itself in the reader's browser.

PyTorch's networks become ONNX, which onnxruntime-web runs as WebAssembly. A page that is opened from a file may not
fetch anything, so that networks and runtime travel as text inside scripts, compressed, and a script is loaded only once
the reader asks for it (``book/_static/live.js``). Where one of both cannot be had, the page is built all the same, and
shows the still picture that it shows without scripts.

    put_beside(Path("build/quick/made/_build/html"))   # what study.pages calls

The runtimes are not part of the repository: `study.live_runtime` says which are taken from the registry of npm. Beside
a figure that may compute on the graphics processor lie those that can, too; its page chooses one. What was fetched and
exported once is kept in build/live.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from study.live_runtime import RUNTIMES, runtime_script

CACHE = Path("build/live")
ROOT = Path(__file__).parents[1]
# {what a figure names as its kind: the module with its KIND}; book/_static/live_<kind>.js shows it.
KINDS = {"glyphs": "study.live_glyphs", "photo": "study.live_photo"}
PROCESSOR, *GRAPHICS = RUNTIMES
FIGURE = '<figure class="touch live" data-live="{}"'


@dataclass(frozen=True)
class Kind:
    """What a page can compute.

    key: what its script and its picture follow from, to know them again; see `key_of`.
    script: makes the script with its networks, which is loaded when asked for. Raises ImportError without onnx.
    still: makes the picture that stands in the page until then, as _static/live_<name of the kind>.<picture>.
    graphics: whether the page may compute it on the graphics processor.
    """

    key: Callable[[], str]
    script: Callable[[], bytes]
    still: Callable[[], bytes]
    picture: str = "png"
    graphics: bool = False


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
        runtimes = {PROCESSOR: _runtime(PROCESSOR)}
        scripts = {name: made_once(f"{name}.js", kind.script, kind.key()) for name, kind in kinds.items()}
    except (OSError, ImportError) as error:
        print(f"Nothing in the book is computed live, and a picture stands there instead: {error}", file=sys.stderr)
        return
    try:
        if any(kind.graphics for kind in kinds.values()):
            runtimes |= {name: _runtime(name) for name in GRAPHICS}
    except OSError as error:
        print(f"What is computed live is so on the processor alone: {error}", file=sys.stderr)
    folder = html / "_static" / "live"
    folder.mkdir(exist_ok=True)
    for name, script in (runtimes | scripts).items():
        (folder / f"{name}.js").write_bytes(script)
    for page, text in texts.items():
        told = text
        for name, kind in kinds.items():
            megabytes = {
                runtime: (len(script) + len(scripts[name])) / 1e6
                for runtime, script in runtimes.items()
                if kind.graphics or runtime == PROCESSOR
            }
            sizes = "".join(f' data-{runtime}="{size:.0f}"' for runtime, size in megabytes.items())
            told = told.replace(FIGURE.format(name), FIGURE.format(name) + sizes)
        if told != text:
            page.write_text(told, encoding="utf-8")


def _runtime(name: str) -> bytes:
    return made_once(f"{name}.js", lambda: runtime_script(name), repr(RUNTIMES[name]))


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
    for file in ("study/live_text.py", "study/live_onnx.py", *code):
        digest.update((ROOT / file).read_bytes())
    return digest.hexdigest()
