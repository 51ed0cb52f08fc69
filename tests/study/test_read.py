"""A chapter that was run by hand becomes a page that shows what the run found, in its text."""

import copy
import json
from types import SimpleNamespace

import pytest

from study import read

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PROSE = """(here)=
# A chapter

It finds {glue:text}`share` of {glue:text}`n`, as {numref}`fig-one` shows and {cite:t}`dong2021` say {cite}`he2016`.
[Chapter 2](02_logit_inversion.ipynb), [below](here), and [a page](https://example.org).
It finds {glue:text}`02_logit_inversion.ipynb::found_standard:s` there.

```{glue:figure} one
:name: fig-one
:alt: Two lines: a circle and a square.
A caption with {glue:text}`n`.

A second paragraph.
```

```{figure} images/diagram_chain_of_inverses.svg
:name: fig-chain
:alt: A chain.
Drawn beforehand.
```

```{glue:figure} none
:name: fig-none
Not there.
```

```{warning}
Few.
```
"""


def glued(name, **data):
    data = {f"application/papermill.record/{kind}": value for kind, value in data.items()}
    return {"output_type": "display_data", "data": data, "metadata": {"scrapbook": {"name": name}}}


@pytest.fixture
def notebook():
    outputs = [
        glued("share", **{"text/plain": "'48 %'"}),
        glued("n", **{"text/plain": "'25'"}),
        glued("one", **{"text/plain": "<Figure size 10x10>", "image/png": PNG}),
        {"output_type": "stream", "name": "stdout", "text": "a table"},
        {"output_type": "stream", "name": "stderr", "text": "divide, step 1 of 71:  11%|█  | 00:53 left\na warning\n"},
        {"output_type": "stream", "name": "stderr", "text": ["divide, step 2 of 71:  12%|█  | 00:52 left\n"]},
    ]
    code = {"cell_type": "code", "execution_count": 1, "metadata": {}, "outputs": outputs, "source": "run()"}
    hidden = code | {"metadata": {"tags": ["remove-cell"]}, "outputs": [], "source": "hidden()"}
    prose = {"cell_type": "markdown", "metadata": {}, "source": PROSE}
    return {"cells": [prose, code, hidden], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}


def test_numbers_and_figures_stand_in_the_text(notebook):
    before = copy.deepcopy(notebook)
    prose, code = read.filled(notebook)["cells"]
    assert notebook == before, "the notebook that was given stays as it is"
    text = prose["source"]
    assert "It finds 48 % of 25, as figure 1 shows and Dong 2021 say (He 2016)." in text
    assert "It finds (in the book) there." in text
    assert "Chapter 2, below, and [a page](https://example.org)." in text
    assert "![Two lines: a circle and a square.](attachment:one)\n\n*Figure 1.* A caption with 25." in text
    assert "![A chain.](attachment:diagram_chain_of_inverses.svg)\n\n*Figure 2.* Drawn beforehand." in text
    assert "*Figure 3.* (Not made in this run.)" in text
    assert "> Few." in text
    assert "```" not in text and "{" not in text and "(here)=" not in text
    assert prose["attachments"]["one"] == {"image/png": PNG}
    assert list(prose["attachments"]["diagram_chain_of_inverses.svg"]) == ["image/svg+xml"]
    assert [output["text"] for output in code["outputs"]] == ["a table", "a warning\n"]


def test_negative_numbers_and_differences_between_shares_are_written_as_in_the_book(notebook, tmp_path):
    """A minus, and percentage points where book/points.yaml lists the number: in prose and in tables."""
    difference, table = "found_seed_1_minus_standard", "<table class='dataframe'><tr><td>-1.5 %</td></tr></table>"
    notebook["cells"][0]["source"] = f"It is {{glue:text}}`{difference}` ({{glue:text}}`{difference}_ci`) `-2`."
    notebook["cells"][1] |= {"source": 'study = notebook.open("02_logit_inversion")'}
    notebook["cells"][1]["outputs"] += [
        glued(difference, **{"text/plain": "'-0.80 %'"}),
        glued(f"{difference}_ci", **{"text/plain": "'-4.0 to 2.3 %'"}),
        {"output_type": "display_data", "data": {"text/html": table, "text/plain": "-1.5 %"}, "metadata": {}},
    ]
    said = "It is −0.80 percentage points (−4.0 to 2.3 points) `-2`."
    assert read.filled(notebook)["cells"][0]["source"] == said
    (tmp_path / "out.ipynb").write_text(json.dumps(notebook))
    read.page(tmp_path / "out.ipynb", tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<td>−1.5 %</td>" in html and "<code>-2</code>" in html
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.ipynb", "page.html"]


def test_the_command_writes_one_page(notebook, tmp_path, capsys):
    (tmp_path / "out.ipynb").write_text(json.dumps(notebook))
    assert read.main([str(tmp_path / "out.ipynb")]) == 0
    assert capsys.readouterr().out == f"Written: {tmp_path / 'out.html'}\n"
    html = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "It finds 48 % of 25" in html and f"data:image/png;base64,{PNG}" in html


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "There is no"),
        ("no JSON", "is no notebook"),
        ("[]", "is no notebook"),
        ("unexecuted", "was not executed"),
    ],
)
def test_what_is_no_executed_notebook_is_one_sentence(content, sentence, notebook, tmp_path, capsys):
    if content == "unexecuted":
        for cell in notebook["cells"]:
            cell.pop("execution_count", None)
        content = json.dumps(notebook)
    if content is not None:
        (tmp_path / "out.ipynb").write_text(content)
    assert read.main([str(tmp_path / "out.ipynb")]) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1


def test_without_a_notebook_the_command_says_which(capsys):
    assert read.main([]) == 2
    assert "python -m study.read out.ipynb" in capsys.readouterr().err


CODE = {"cell_type": "code", "execution_count": 1, "metadata": {}, "outputs": [], "source": "1"}


@pytest.mark.parametrize(
    "text",
    [
        "[]", "{", "[" * 100_000, "\udcff", '{"cells": [5]}', '{"cells": 5}', '{"cells": [{"execution_count": 1}]}',
        json.dumps({"cells": [CODE | {"outputs": 5}]}), json.dumps({"cells": [CODE | {"outputs": [{"data": 5}]}]}),
        json.dumps({"cells": [CODE | {"metadata": []}]}), json.dumps({"cells": [CODE, {"cell_type": "markdown"}]}),
    ],
)  # fmt: skip
def test_a_notebook_that_is_damaged_is_one_sentence(tmp_path, capsys, monkeypatch, text):
    monkeypatch.setattr(read.subprocess, "run", lambda *command, **options: pytest.fail("a page is made of it"))
    (tmp_path / "out.ipynb").write_text(text, errors="surrogateescape")
    assert read.main([str(tmp_path / "out.ipynb")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and ("is no notebook: give the one" in said or "is damaged: run the" in said)
    assert [path.name for path in tmp_path.iterdir()] == ["out.ipynb"]


@pytest.mark.parametrize("arguments", [["."], ["a" * 5000], ["a\0"], ["out.ipynb", "."], ["out.ipynb", "a" * 5000]])
def test_a_path_of_a_page_that_cannot_be_is_one_sentence(tmp_path, capsys, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.ipynb").write_text(json.dumps({"cells": [CODE]}))
    assert read.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and len(said) < 500
    assert [path.name for path in tmp_path.iterdir()] == ["out.ipynb"]
    assert read.main([""]) == read.main(["out.ipynb", ""]) == 2 and "Say which" in capsys.readouterr().err


def test_where_nbconvert_fails_its_last_line_is_the_reason(tmp_path, capsys, monkeypatch):
    (tmp_path / "out.ipynb").write_text(json.dumps({"cells": [CODE]}))
    failed = SimpleNamespace(returncode=1, stderr="Traceback\nPermissionError: no\n")
    monkeypatch.setattr(read.subprocess, "run", lambda *command, **options: failed)
    assert read.main([str(tmp_path / "out.ipynb")]) == 1
    assert "out.ipynb (PermissionError: no): name another" in capsys.readouterr().err
