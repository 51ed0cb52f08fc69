"""A chapter that papermill has run, as one page to be read: its text with the numbers and figures of that run.

    papermill notebooks/07_zero_shot_inversion.ipynb out.ipynb -y '{weights: mine}'
    python -m study.read out.ipynb  # writes out.html

What a chapter glues for the book stands in no cell's output, and `{glue:text}` in its prose stays as it is written, in
JupyterLab too. Here both become Markdown, with the pictures attached to their cells, and nbconvert makes a page of it.
Negative numbers and differences between shares are written as in the book.
"""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from bs4 import BeautifulSoup

from invkit.store import as_path, whole
from study.notebook import StudyError, read_json, source_of
from study.outputs import without_progress
from study.pages import POINTS, as_shown, points_of
from study.web_pages import put_minus, with_minus

BOOK = Path(__file__).parents[1] / "book"  # where the diagrams are
GLUED = "application/papermill.record/"
OPENED = re.compile(r"""notebook\.open\(["'](\w+)["']""")  # by which a chapter says its name
NUMBERS = "table.dataframe td, .jp-OutputArea-output :is(p, li)"  # in nbconvert's page: those that a notebook computed
PICTURE = re.compile(r"^```{(glue:)?figure} (\S+)\n((?::[^\n]*\n)*)(.*?)^```$", re.MULTILINE | re.DOTALL)
NOTE = re.compile(r"^```{\w+}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TYPES = {".png": "image/png", ".svg": "image/svg+xml", ".webp": "image/webp"}


def filled(notebook):
    """The executed notebook (nbformat's dictionary) with the values and figures that it glued, in its prose."""
    sources = [source_of(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names = [name for source in sources for name in OPENED.findall(source)]
    ids = [id for name in names[:1] for id in points_of(name, BOOK / POINTS.name)]
    notebook = notebook | {"cells": [as_shown(cell, ids) for cell in notebook["cells"]]}
    glued = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if name := _glued_name(output):
                glued[name] = {kind.removeprefix(GLUED): value for kind, value in output["data"].items()}
    numbers = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            for _, id, options, _ in PICTURE.findall(source_of(cell)):
                numbers[_options(options).get("name", id)] = len(numbers) + 1
    cells = [_cell(cell, glued, numbers) for cell in notebook["cells"]]
    return notebook | {"cells": [cell for cell in cells if "remove-cell" not in cell["metadata"].get("tags", [])]}


def _glued_name(output):
    glued = any(kind.startswith(GLUED) for kind in output.get("data", {}))
    return output.get("metadata", {}).get("scrapbook", {}).get("name") if glued else None


def _cell(cell, glued, numbers):
    if cell["cell_type"] != "markdown":
        outputs = [output for output in without_progress(cell.get("outputs", [])) if not _glued_name(output)]
        return cell | ({"outputs": outputs} if cell["cell_type"] == "code" else {})
    attached = {}

    def pictured(match):
        made_here, id, options, caption = match.groups()
        options, file = _options(options), Path(id)
        if made_here:
            kind, content = "image/png", glued.get(id, {}).get("image/png")
        else:
            kind = TYPES[file.suffix]
            content = base64.b64encode((BOOK / file).read_bytes()).decode() if (BOOK / file).is_file() else None
        label = f"Figure {numbers[options.get('name', id)]}."
        if content is None:
            return f"*{label}* (Not made in this run.)"
        attached[file.name] = {kind: content if isinstance(content, str) else "".join(content)}
        return f"![{options.get('alt', '')}](attachment:{file.name})\n\n*{label}* {caption}"

    def said(match):
        return with_minus("".join(glued.get(match[1], {}).get("text/plain", match[0])).strip("'\""))

    text = PICTURE.sub(pictured, source_of(cell))
    text = NOTE.sub(lambda match: "".join(f"> {line}\n" for line in match[1].splitlines()), text)
    text = re.sub(r"{glue:text}`(\w+)`", said, text)
    text = re.sub(r"{glue:text}`[\w.]+::[\w:]+`", "(in the book)", text)  # a number of another chapter
    text = re.sub(r"{numref}`([\w-]+)`", lambda match: f"figure {numbers.get(match[1], match[1])}", text)
    text = re.sub(r"{cite:t}`([^`]+)`", lambda match: _cited(match[1]), text)
    text = re.sub(r"{cite(?::p)?}`([^`]+)`", lambda match: f"({_cited(match[1])})", text)
    text = re.sub(r"^\([\w-]+\)=\n", "", text, flags=re.MULTILINE)  # what links of the book lead to
    text = re.sub(r"\[([^\]]+)\]\((?:[\w-]+\.(?:ipynb|md))?(?:#?[\w-]+)?\)", r"\1", text)  # pages that are not there
    return cell | {"source": text} | ({"attachments": attached} if attached else {})


def _options(lines):
    return dict(re.findall(r"^:(\w+): (.*)$", lines, re.MULTILINE))


def _cited(keys):
    """Author and year of "dong2021,teterwak2021"."""
    return ", ".join(
        re.sub(r"^(\D+)(\d{4}).*$", lambda key: f"{key[1].title()} {key[2]}", key) for key in keys.split(",")
    )


def page(executed, html):
    """Write the page of an executed notebook.

    Raises:
        StudyError: there is no such notebook, or it is none, or nothing in it was executed.
    """
    executed, html = Path(executed), Path(html)
    if not executed.is_file():
        raise StudyError(f"There is no {executed}: give the notebook that papermill wrote, such as out.ipynb.")
    try:
        notebook = read_json(executed)
        ran = any(cell.get("execution_count") for cell in notebook["cells"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise StudyError(f"{executed} is no notebook: give the one that papermill wrote, such as out.ipynb.") from None
    if html.is_dir():
        raise StudyError(f"{html} is a folder: name a file for the page, such as out.html.")
    if not ran:
        raise StudyError(f"{executed} was not executed: run it with papermill, and give what that wrote.")
    with TemporaryDirectory() as folder:
        source = Path(folder, html.with_suffix(".ipynb").name)
        try:
            text = json.dumps(filled(notebook))
        except (KeyError, TypeError, AttributeError):  # a cell without what nbformat asks of it
            raise StudyError(f"{executed} is damaged: run the chapter again, and give what papermill wrote.") from None
        source.write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "html", "--log-level", "ERROR", str(source)]
        made = subprocess.run([*command, "--output-dir", folder], capture_output=True, text=True)
        if made.returncode:
            why = (made.stderr.strip().splitlines() or ["it does not say why"])[-1]
            raise StudyError(f"nbconvert made no page {html} of {executed} ({why}): name another, or mend that.")
        soup = BeautifulSoup(source.with_suffix(".html").read_text(encoding="utf-8"), "html.parser")
    put_minus(soup, NUMBERS)
    with whole(html) as file:
        file.write_text(str(soup), encoding="utf-8")


def main(arguments):
    """The command: one sentence, with the page that was written, or what is wrong."""
    if not 0 < len(arguments) < 3 or not all(arguments):
        print("Say which: python -m study.read out.ipynb", file=sys.stderr)
        return 2
    try:
        executed = as_path(arguments[0])
        html = as_path(arguments[1] if len(arguments) > 1 else executed.parent / f"{executed.stem}.html")
        page(executed, html)
    except (StudyError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Written: {html}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
