"""The published copies: executed notebooks of the profile ``published``, kept in the repository, figures compressed.

A copy is stored under book/published with the notebook's results file and the figures that a page of prose shows.
`study.pages` compiles the copies, as they are and without running anything.
"""

import base64
import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from invkit.store import whole
from study.copies import PUBLISHED as STORED
from study.copies import facts_in, read_copy, read_results, sealed
from study.fingerprint import fingerprint
from study.notebook import StudyError
from study.pages import facts_of
from study.profiles import notebooks

MOST_PUBLISHED = 25 * 2**20  # bytes of book/published
ALIKE = 45.0  # dB: a figure in 256 colours that is this near to the original takes its place


def take(name, digest, folder):
    """Copy a published notebook and its results to a folder, if its fingerprint is ``digest``; whether it was.

    Raises StudyError where one of the two is damaged.
    """
    stored = STORED / f"{name}.ipynb"
    if not stored.exists() or facts_of(stored).get("fingerprint") != digest:
        return False
    read_results(STORED / f"{name}.results.json")
    for path in STORED.glob(f"{name}.*"):
        shutil.copy(path, folder / path.name)
    return True


def publish():
    """Copy what ``make published`` executed to book/published/, figures compressed, to be committed.

    Of the PNGs beside the notebooks only those that a prose page names go along: the notebooks hold every figure. A
    chapter that was not executed, or whose inputs have changed since, keeps its published copy; a line says so.
    Raises StudyError, and changes nothing, where a copy is damaged, and where all together would be too much for a
    repository.
    """
    stored, executed = STORED, Path("build/published/executed")
    prose = "".join(page.read_text(encoding="utf-8") for page in sorted(Path("book").glob("*.md")))
    kept = {path.name: path.read_bytes() for path in stored.glob("*.*") if path.name.split(".")[0] in notebooks()}
    for name in notebooks():
        path = executed / f"{name}.ipynb"
        notebook = read_copy(path) if path.exists() else None
        if notebook is None or facts_in(notebook).get("fingerprint") != fingerprint(name, "published"):
            state = "kept as it was" if f"{name}.ipynb" in kept else "missing"
            print(f"{name} was not executed as it is now: its published copy is {state}.")
            continue
        if path.read_bytes() == kept.get(path.name):  # it was taken from there, and its figures are small already
            continue
        kept = {file: content for file, content in kept.items() if file.split(".")[0] != name}
        results, _ = read_results(executed / f"{name}.results.json")
        kept[path.name] = _written(_compressed(_pictured_once(notebook)), results)
        kept[f"{name}.results.json"] = results.encode()
        for figure in executed.glob(f"{name}.*.png"):
            if figure.name in prose:
                kept[figure.name] = _smaller_figure(figure, path)
    size = sum(map(len, kept.values()))
    if size > MOST_PUBLISHED:
        most = f"{MOST_PUBLISHED / 2**20:.0f} MiB"
        raise StudyError(
            f"book/published would hold {size / 2**20:.1f} MiB, more than {most}: make fewer or smaller figures."
        )
    for file, content in kept.items():
        with whole(stored / file) as partial:
            partial.write_bytes(content)
    for path in stored.glob("*.*"):  # only now: a copy that was published is there at every moment
        if path.name not in kept:
            path.unlink()
    print(f"book/published: {size / 2**20:.1f} MiB")


def vouch(why):
    """Keep the published copies of chapters whose code has changed without a change of what they hold.

    For a mend that moves no number: of signals, messages, or files, with tests that say so. The change must not be
    committed yet. Copies that are of the last commit's fingerprint become copies of the code as it is now; each keeps
    ``why``, with the fingerprint that it was executed with, and its page says so.
    Raises StudyError, and changes nothing, where a copy is damaged, or the last commit cannot be looked at.
    """
    before, vouched = _fingerprints_of_the_last_commit(), {}
    for name in notebooks():
        path = STORED / f"{name}.ipynb"
        if not path.exists():
            continue
        notebook, now = read_copy(path), fingerprint(name, "published")
        facts = facts_in(notebook)
        if facts.get("fingerprint") == before.get(name) != now:
            words = [*facts.get("vouched", []), {"executed as": facts["fingerprint"], "why": why}]
            notebook["metadata"]["invkit"] = facts | {"fingerprint": now, "vouched": words}
            results, _ = read_results(path.with_name(f"{name}.results.json"))
            vouched[path] = _written(notebook, results)
    for path, content in vouched.items():
        with whole(path) as partial:
            partial.write_bytes(content)
    print(f"Vouched for: {', '.join(path.stem for path in vouched) or 'none, since nothing has changed'}.")


def _fingerprints_of_the_last_commit():
    """{chapter: its fingerprint in the profile "published"}, by all that the last commit holds."""
    ask = (
        "import json; from study.fingerprint import fingerprint; from study.profiles import notebooks; "
        "print(json.dumps({name: fingerprint(name, 'published') for name in notebooks()}))"
    )
    with tempfile.TemporaryDirectory() as folder:
        tree = f"{folder}/tree"
        try:
            subprocess.run(["git", "worktree", "add", "--detach", tree, "HEAD"], check=True, capture_output=True)
            said = subprocess.run([sys.executable, "-c", ask], cwd=tree, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
            raise StudyError(
                f"The last commit cannot be looked at, to vouch for what changed since: {reason}."
            ) from None
        finally:
            shutil.rmtree(tree, ignore_errors=True)
            subprocess.run(["git", "worktree", "prune"], check=False, capture_output=True)
    return json.loads(said.stdout)


def _smaller_figure(figure, copy):
    """The bytes of a figure that stands beside the executed copy which made it."""
    try:
        return _smaller(figure.read_bytes(), ("png",))[1]
    except (OSError, SyntaxError):  # what Pillow raises for a damaged PNG
        raise StudyError(f"{figure} is damaged: delete {copy}, and `make published` makes both again.") from None


def _written(notebook, results):
    """The bytes of a published copy: sealed, and a line for each entry, without indents."""
    return (json.dumps(sealed(notebook, results), indent=0, separators=(",", ":"), ensure_ascii=False) + "\n").encode()


def _pictured_once(notebook):
    """The notebook without the second copy of a picture that a cell both shows and keeps by its id (`study.figure`)."""
    for cell in notebook["cells"]:
        outputs = [output.get("data", {}) for output in cell.get("outputs", ())]
        shown = [data[kind] for data in outputs for kind in data if kind.startswith("image/")]
        for data in outputs:
            for kind in [kind for kind in data if "/papermill.record/image/" in kind and data[kind] in shown]:
                del data[kind]
    return notebook


def _compressed(notebook):
    """The notebook with each of its figures as a palette PNG where 256 colours will do, else as a JPEG."""
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", ())):
        data = output.get("data", {})
        for kind in [kind for kind in data if kind.endswith("image/png")]:
            form, image = _smaller(base64.b64decode(data.pop(kind)))
            data[kind.removesuffix("png") + form] = base64.b64encode(image).decode()
    return notebook


def _smaller(original, forms=("png", "jpeg")):
    """(form, bytes) of a PNG: in 256 colours if that looks alike, else as a JPEG if this is allowed and smaller."""
    picture = Image.open(io.BytesIO(original)).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    palette, few, jpeg = picture.quantize(256, dither=Image.Dither.NONE), io.BytesIO(), io.BytesIO()
    error = np.square(np.asarray(picture, dtype=float) - np.asarray(palette.convert("RGB"), dtype=float)).mean()
    choices = [("png", original)]
    if 10 * np.log10(255**2 / max(error, 1e-9)) >= ALIKE:
        palette.save(few, "PNG", optimize=True)
        choices.append(("png", few.getvalue()))
    elif "jpeg" in forms:
        picture.save(jpeg, "JPEG", quality=85, subsampling=0)
        choices.append(("jpeg", jpeg.getvalue()))
    return min(choices, key=lambda choice: len(choice[1]))
