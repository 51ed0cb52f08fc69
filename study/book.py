"""The study from outside: what must run again, papermill runs, published copies, the compiled book.

    python -m study.book run NAME --profile quick    # one notebook -> build/quick/executed/
    python -m study.book compile --profile quick     # executed notebooks and prose -> build/quick/html/index.html
    python -m study.book publish                     # build/published/executed/ -> book/published/
    python -m study.book expect                      # the quick profile's numbers -> profiles/quick.expected.json

The Makefile and the Snakefile call these from the repository's root, to which all paths are relative.

What a notebook depends on is what its code and parameters *name*: modules of invkit (and what those name in turn),
weights (the shipped ones, or those in the folder INVKIT_WEIGHTS), earlier notebooks. The hash of all this, its
fingerprint, decides whether it runs again. Prose, comments and docstrings are no part of it, nor are time stamps. In
the profile ``published``, which takes hours, the fingerprint holds only the code and parameters of notebooks and the
SHA-256 of the weights that these parameters name; each page says which version of invkit made it.
"""

import argparse
import ast
import base64
import datetime
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from traitlets.config import Config

import invkit
from invkit.store import code_version, machine_class, weights_folder
from study.notebook import (
    RUN_VARIABLE,
    StudyError,
    check_parameters,
    default_parameters,
    read_json,
    source_of,
    write,
)

MOST_PUBLISHED = 25e6  # bytes of book/published
ALIKE = 45.0  # dB: a figure in 256 colours that is this near to the original takes its place


def notebooks():
    """The study's chapters: the names of all files in notebooks/, in order."""
    return sorted(path.stem for path in Path("notebooks").glob("*.ipynb"))


def parameters(name, profile):
    """The profile's parameters for one notebook, checked against the notebook's defaults."""
    path = Path("profiles") / f"{profile}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in Path("profiles").glob("*.yaml")))
        raise StudyError(f"There is no profile {profile!r}; there are {known}.")
    chapters = yaml.safe_load(path.read_text()) or {}
    for chapter in chapters:
        if chapter not in notebooks():
            raise StudyError(f"{path} has parameters for {chapter}, which is not in notebooks/.")
    given = chapters.get(name) or {}
    try:
        check_parameters(name, default_parameters(f"notebooks/{name}.ipynb"), given)
    except (TypeError, ValueError) as error:
        raise StudyError(f"{path}: {error}") from None
    return given


def needs(name, profile):
    """The earlier notebooks whose results this one reads: those that its code or parameters name."""
    text = _code_of_notebook(name) + json.dumps(parameters(name, profile))
    return [other for other in notebooks() if other < name and other in text]


def fingerprint(name, profile):
    """SHA-256 of all that a notebook's outputs depend on (see the top of this file)."""
    given = parameters(name, profile)
    code = _code_of_notebook(name)
    parts = [code, given, [fingerprint(other, profile) for other in needs(name, profile)]]
    cards = sorted(weights_folder(Path()).glob("*/card.json"))
    if profile == "published":
        text = json.dumps(default_parameters(f"notebooks/{name}.ipynb") | given)
        parts += [read_json(card).get("sha256") for card in cards if card.parent.name in text]
    else:
        text = code + json.dumps(given)  # not the modules: the recipes name all weights, and load none that are shipped
        parts += [_modules_named(code), [card.read_text() for card in cards if card.parent.name in text]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _code_of_notebook(name):
    cells = read_json(f"notebooks/{name}.ipynb")["cells"]
    return "\n".join(source_of(cell).strip() for cell in cells if cell["cell_type"] == "code")


def _modules_named(code):
    """``{module: its code}`` of every invkit module that ``code`` names, and that those name in turn."""
    everything = {path.stem: path for path in Path(invkit.__file__).parent.glob("*.py") if path.stem != "__init__"}
    found, texts = {}, [code]
    while texts:
        words = set(re.findall(r"\w+", texts.pop()))
        words |= {module for function, module in invkit._FUNCTIONS.items() if function in words}
        for module in sorted(words & everything.keys() - found.keys()):
            found[module] = _code_of_module(everything[module])
            texts.append(found[module])
    return found


def _code_of_module(path):
    """The module without comments and docstrings, which change no result."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def run(name, profile):
    """Execute one notebook into ``build/<profile>/executed/``, or take the published copy of the same fingerprint.

    Raises StudyError when a cell fails; the copy executed so far is then ``build/<profile>/failed/<name>.ipynb``.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    if name not in notebooks():
        raise StudyError(f"There is no notebook {name!r}; there are {', '.join(notebooks())}.")
    given, digest = parameters(name, profile), fingerprint(name, profile)
    build = Path("build") / profile
    executed, attempt = build / "executed", build / "failed" / f"{name}.ipynb"
    for folder in (executed, attempt.parent):
        folder.mkdir(parents=True, exist_ok=True)
    place = f"[{notebooks().index(name) + 1}/{len(notebooks())}] {name}"

    stored = Path("book/published") / f"{name}.ipynb"
    if profile == "published" and stored.exists() and read_json(stored)["metadata"]["invkit"]["fingerprint"] == digest:
        print(f"{place}: unchanged since it was published", flush=True)
        for path in stored.parent.glob(f"{name}.*"):
            shutil.copy(path, executed / path.name)
        return

    long = ": no published copy of it as it is now, so it runs, perhaps for hours" if profile == "published" else ""
    print(f"{place} (profile {profile}){long}", flush=True)
    lock = attempt.with_suffix(".lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)  # a run whose Snakemake was killed may still be at it: wait for its end
    os.environ[RUN_VARIABLE] = json.dumps(
        {
            "profile": profile,
            "source": str(Path(f"notebooks/{name}.ipynb").resolve()),
            "results": str(executed.resolve()),
            "folder": str((build / "work" / name / digest[:12]).resolve()),
        }
    )
    results = executed / f"{name}.results.json"
    results.unlink(missing_ok=True)
    started = time.time()
    try:
        with tempfile.TemporaryDirectory(prefix="invkit-") as sockets:
            # The kernel talks through files of its own, not through TCP ports that others on the machine could reach.
            config = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
            bar = {"desc": name}  # another notebook may run at the same time
            papermill.execute_notebook(f"notebooks/{name}.ipynb", attempt, given, progress_bar=bar, config=config)
    except papermill.PapermillExecutionError as error:
        first_line = (str(error.evalue).splitlines() or [""])[0]
        raise StudyError(
            f"{name} failed in its cell {error.cell_index}: {error.ename}: {first_line} "
            f"Its executed copy, up to there, is {attempt}."
        ) from None
    except DeadKernelError:
        raise StudyError(f"{name} lost its kernel (out of memory?); see {attempt}.") from None
    facts = {"fingerprint": digest, "profile": profile, "minutes": round((time.time() - started) / 60, 1)}
    facts |= {"date": f"{datetime.date.today()}", "machine": machine_class(), "version": code_version()}
    if not results.exists():  # it has no headline numbers
        write(results, "{}\n")
    write(executed / f"{name}.ipynb", json.dumps(_clean(read_json(attempt), facts), indent=1) + "\n")
    attempt.unlink()
    lock.close()


def _clean(notebook, facts):
    """Drop what must not reach the page: this machine's paths, progress bars, the injected cell's rendering."""
    notebook["metadata"].pop("papermill", None)
    notebook["metadata"].pop("widgets", None)
    notebook["metadata"]["invkit"] = facts
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if "injected-parameters" in tags:
            tags = [*tags, "remove-cell"]
        cell["metadata"] = {"tags": tags} if tags else {}
        if cell["cell_type"] == "code":
            cell["outputs"] = [output for output in cell["outputs"] if not _is_progress(output)]
    return notebook


def _is_progress(output):
    widget = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return widget or output.get("name") == "stderr"


def compile(profile):
    """Compile ``build/<profile>/html/index.html`` from book/ and the executed notebooks; a warning is an error.

    Prose pages find every ``study.figure`` as ``_static/<notebook>.<id>.png``.
    """
    print("Compiling the pages", flush=True)
    build = Path("build") / profile
    source, made, html = build / "src", build / "made", build / "html"
    for folder in (source, made):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree("book", source, ignore=shutil.ignore_patterns("published"))
    for name in notebooks():
        executed = read_json(build / "executed" / f"{name}.ipynb")
        write(source / f"{name}.ipynb", json.dumps(_with_prose_of(read_json(f"notebooks/{name}.ipynb"), executed)))
    (source / "_static").mkdir(exist_ok=True)
    for figure in (build / "executed").glob("*.png"):
        shutil.copy(figure, source / "_static")
    # A fresh folder and --all, because glue across pages goes stale silently.
    command = [Path(sys.executable).with_name("jupyter-book"), "build", source, "--path-output", made]
    command += ["--config", "_config.yml", "--all", "-W", "--keep-going", "--quiet"]
    if subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL).returncode:
        raise StudyError("The book has warnings or errors, listed above; no page was replaced.")
    _take_offline(made / "_build" / "html")
    shutil.rmtree(html, ignore_errors=True)
    shutil.move(made / "_build" / "html", html)
    shutil.rmtree(made)


def _take_offline(html):
    """MathJax beside the pages instead of from the network, and no Thebe, which could only be loaded from there."""
    shutil.copy(files("mathjax") / "static/mathjax/es5/tex-svg.js", html / "_static/mathjax.js")
    for page in html.rglob("*.html"):
        page.write_text(re.sub(r"<script[^<]*thebe[^<]*</script>", "", page.read_text()))


def _with_prose_of(source, executed):
    """The source's cells with the executed copy's outputs: an edited sentence needs no new run."""
    done = [cell for cell in executed["cells"] if cell["cell_type"] == "code"]
    done = iter([cell for cell in done if "injected-parameters" not in cell["metadata"].get("tags", [])])
    cells = [
        next(done) | {"metadata": cell["metadata"]} if cell["cell_type"] == "code" else cell for cell in source["cells"]
    ]
    return executed | {"cells": cells}


def publish():
    """Copy what ``make book PROFILE=published`` executed to book/published/, figures compressed, to be committed.

    Of the PNGs beside the notebooks only those that a prose page names go along: the notebooks hold every figure. A
    chapter that was not executed, or whose inputs have changed since, keeps its published copy; a line says so.
    Raises StudyError, and changes nothing, where all together would be too much for a repository.
    """
    stored, executed = Path("book/published"), Path("build/published/executed")
    prose = "".join(page.read_text() for page in sorted(Path("book").glob("*.md")))
    kept = {path.name: path.read_bytes() for path in stored.glob("*.*") if path.name.split(".")[0] in notebooks()}
    for name in notebooks():
        path = executed / f"{name}.ipynb"
        notebook = read_json(path) if path.exists() else None
        if notebook is None or notebook["metadata"]["invkit"]["fingerprint"] != fingerprint(name, "published"):
            state = "kept as it was" if f"{name}.ipynb" in kept else "missing"
            print(f"{name} was not executed as it is now: its published copy is {state}.")
            continue
        kept = {file: content for file, content in kept.items() if file.split(".")[0] != name}
        kept[path.name] = (json.dumps(_compressed(notebook), indent=1) + "\n").encode()
        kept[f"{name}.results.json"] = (executed / f"{name}.results.json").read_bytes()
        for figure in executed.glob(f"{name}.*.png"):
            if figure.name in prose:
                kept[figure.name] = _smaller(figure.read_bytes(), ("png",))[1]
    size = sum(map(len, kept.values()))
    if size > MOST_PUBLISHED:
        most = f"{MOST_PUBLISHED / 1e6:.0f} MB"
        raise StudyError(
            f"book/published would hold {size / 1e6:.1f} MB, more than {most}: make fewer or smaller figures."
        )
    shutil.rmtree(stored, ignore_errors=True)
    stored.mkdir()
    for file, content in kept.items():
        (stored / file).write_bytes(content)
    print(f"book/published: {size / 1e6:.1f} MB")


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
        picture.save(jpeg, "JPEG", quality=90, subsampling=0)
        choices.append(("jpeg", jpeg.getvalue()))
    return min(choices, key=lambda choice: len(choice[1]))


def expect():
    """Write ``profiles/quick.expected.json``, with which CI compares, from the quick profile's results."""
    expected = {}
    for name in notebooks():
        results = json.loads(Path(f"build/quick/executed/{name}.results.json").read_text())
        kept = {id: result for id, result in results.items() if result["tolerance"] is not None}
        expected[name] = {id: {"value": r["value"], "tolerance": r["tolerance"]} for id, r in kept.items()}
    write(Path("profiles/quick.expected.json"), json.dumps(expected, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(
        prog="python -m study.book", description="Run the study's notebooks and compile its book."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("run", "compile", "publish", "expect"):
        sub = commands.add_parser(command)
        if command == "run":
            sub.add_argument("name")
        if command in ("run", "compile"):
            sub.add_argument("--profile", default="quick")
    arguments = vars(parser.parse_args())
    try:
        globals()[arguments.pop("command")](**arguments)
    except StudyError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
