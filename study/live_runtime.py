"""The runtimes that compute in the reader's browser: onnxruntime-web, as scripts that a page loads when it is asked.

None is part of the repository: `RUNTIMES` says which files of which package are taken from the registry of npm, and by
which hash a package is known. ``processor`` is what every browser can run. ``jspi`` and ``asyncify`` compute on the
graphics processor, by WebGPU: the first where WebAssembly can wait for a promise, the second, which is larger as it has
to wait by means of its own, elsewhere. ``book/_static/live_runtime.js`` chooses.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import tarfile
import time
import urllib.request
from dataclasses import dataclass

from study.live_text import as_script, as_text

ANSWER, WHOLE = 4, 90  # seconds: until the registry answers, and for the whole file
NOTE = b"/* ONNX Runtime Web. Copyright (c) Microsoft Corporation. Licensed under the MIT License. */\n"


@dataclass(frozen=True)
class Runtime:
    """Where a runtime comes from.

    url: the package, whose licence is MIT and whose copyright Microsoft's.
    integrity: its hash, as npm writes it.
    script: the file of the package that a page runs.
    asked: {what that script asks for: the file of the package that it gets}.
    """

    url: str
    integrity: str
    script: str
    asked: dict[str, str]


# The newest whose WebAssembly for the processor is small.
PLAIN = (
    "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.14.0.tgz",
    "sha512-Kcqf43UMfW8mCydVGcX9OMXI2VN17c0p6XvR7IPSZzBf/6lteBzXHvcEVWDPmCKuGombl997HgLqj91F11DzXw==",
)
# The one whose WebAssembly with WebGPU is the smallest, of those that have both kinds of it.
GRAPHICS = (
    "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.25.1.tgz",
    "sha512-mgs61sJ9m3hLa5jGRr9Pen3kkG00vlxmrcRL6FufYpSWBZKaklo0sotQCq2fLjgDVLnW57jrDcLqzYJNKeZskQ==",
)
BUILD = "ort-wasm-simd-threaded"  # one thread is what it is given
RUNTIMES = {
    "processor": Runtime(*PLAIN, "ort.wasm-core.min.js", {"ort-wasm-simd.wasm": "ort-wasm-simd.wasm"}),
    "jspi": Runtime(*GRAPHICS, "ort.jspi.min.js", {"mjs": f"{BUILD}.jspi.mjs", "wasm": f"{BUILD}.jspi.wasm"}),
    "asyncify": Runtime(
        *GRAPHICS, "ort.webgpu.min.js", {"mjs": f"{BUILD}.asyncify.mjs", "wasm": f"{BUILD}.asyncify.wasm"}
    ),
}


def runtime_script(name: str) -> bytes:
    """The script of one of RUNTIMES. Raises OSError where its package cannot be had, or is another."""
    runtime = RUNTIMES[name]
    with tarfile.open(fileobj=io.BytesIO(_package(runtime.url, runtime.integrity))) as files:
        read = lambda file: files.extractfile(f"package/dist/{file}").read()  # noqa: E731
        source = read(runtime.script).partition(b"//# sourceMappingURL")[0]
        asked = {what: as_text(read(file)) for what, file in runtime.asked.items()}
    return b"".join((NOTE, source, b"\n", as_script(name, asked)))


@functools.lru_cache(1)  # two runtimes of one package
def _package(url: str, integrity: str) -> bytes:
    package = fetch(url)
    if f"sha512-{base64.b64encode(hashlib.sha512(package).digest()).decode()}" != integrity:
        raise OSError(f"{url} is not the file that study/live_runtime.py names: compare its integrity there.")
    return package


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
