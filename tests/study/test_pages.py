"""The frame of a chapter: its answer in a box, what to know before, and how long it takes to run."""

from pathlib import Path

import yaml

from study import pages
from study.notebook import read_json, source_of
from study.profiles import notebooks

FIRST = "# A title\n\nIs it so?\nYes.\n\n```{figure} a.png\nWords.\n```\n"


def test_the_answer_stands_in_a_box_before_the_first_figure():
    cell = {"source": FIRST, "cell_type": "markdown"}
    text = pages.framed(cell, "07_zero_shot_inversion", {"seconds": 236, "machine": "2 CPU cores"})["source"]
    title, _, rest = text.partition("\n")
    assert title == "# A title"
    assert rest.strip().startswith("::::{admonition} The answer\n:class: answer\nIs it so?\nYes.\n::::\n\n```{figure}")
    assert "**Before you start**: what a convolutional" in text
    assert text.endswith("**Time to run**: 4 minutes with the parameters below (2 CPU cores).\n")


def test_a_chapter_that_has_its_own_frame_keeps_it():
    own = FIRST.replace("Is it so?", ":::{admonition} Short\nIs it so?\n:::")
    own += "\n**Before you start**: nothing. **Time to run**: none.\n"
    text = pages.framed({"source": own}, "07_zero_shot_inversion", {"seconds": 5, "machine": "m"})["source"]
    assert text.count("admonition") == 1 and text.count("**Before you start**") == text.count("**Time to run**") == 1


def test_every_chapter_says_what_to_know_before():
    before = yaml.safe_load(pages.BEFORE.read_text())
    own = {name for name in notebooks() if "**Before you start**" in source_of(first_cell(name))}
    assert set(notebooks()) == before.keys() | own and not before.keys() & own
    for words in before.values():
        assert words.endswith(".") and all((Path("notebooks") / target).exists() for target in linked(words))


def first_cell(name):
    return read_json(f"notebooks/{name}.ipynb")["cells"][0]


def linked(words):
    return [part.partition(")")[0] for part in words.split("](")[1:] if ".ipynb" in part.partition(")")[0]]
