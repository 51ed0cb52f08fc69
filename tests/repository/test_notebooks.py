"""Every chapter's source has what the study needs of it."""

import json
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from study.notebook import check_parameters, default_parameters, source_of

CHAPTERS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
HIDING = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
LINES, WIDTH = 125, 88
BOLD = re.compile(r"\*\*\S.*?\*\*")


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
class TestChapter:
    def test_is_named_so_that_the_book_finds_it(self, path):
        assert re.fullmatch(r"[012]\d_[a-z0-9_]+", path.stem)

    def test_has_one_parameters_cell_of_literals(self, path):
        assert default_parameters(path)

    def test_has_no_outputs(self, path):
        code = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)

    def test_says_its_kernel_and_language_and_nothing_of_a_machine(self, path):
        metadata = json.loads(path.read_text())["metadata"]
        assert metadata["kernelspec"]["name"] == "python3" and metadata["language_info"]["name"] == "python"
        assert metadata.keys() <= {"kernelspec", "language_info"}

    def test_opens_the_study_by_its_own_name_and_ends_with_the_stamp(self, path):
        code = [source_of(cell) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        opening = f'from study import notebook\n\nstudy = notebook.open("{path.stem}")\n'
        assert code[1].removeprefix("import invkit\n").startswith(opening)  # before anything that takes long
        assert code[-1].strip().endswith("study.stamp()")

    def test_shows_its_experiment(self, path):
        """At most 125 lines of code beside the parameters, most of them visible, none too wide for the page."""
        lines, comments = {True: 0, False: 0}, 0
        for cell in json.loads(path.read_text())["cells"]:
            tags = set(cell["metadata"].get("tags", []))
            if cell["cell_type"] == "code" and "parameters" not in tags:
                code = [line for line in source_of(cell).splitlines() if line.strip()]
                assert all(len(line) <= WIDTH for line in code)
                code = [line for line in code if not line.startswith("# Table: ")]  # a caption, which the page shows
                lines[not tags & HIDING] += len(code) if len(code) > 1 else 0  # one line only shows a table
                comments += sum(line.lstrip().startswith("#") for line in code)
        assert lines[True] > lines[False] and sum(lines.values()) - comments <= LINES, lines

    def test_only_its_one_claim_is_bold(self, path):
        """In the answer, which is above the first figure."""
        first, *others = [
            source_of(cell) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown"
        ]
        assert len(BOLD.findall(first.partition("```")[0])) <= 1
        assert not [cell for cell in [first.partition("```")[2], *others] if BOLD.search(cell)]

    def test_records_what_its_prose_shows(self, path):
        """By the study's own methods, so that a results file holds it: no bare glue."""
        code = [source_of(cell) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        assert not [cell for cell in code if re.search(r"(?<![\w.])glue\(", cell)]


# The last section of every chapter has a command that says how to run it on something else.
TITLES = ("Another classifier", "What to change and rerun", "What to change, and where to go on")
COMMAND = re.compile(r"^    (papermill notebooks/\S+ out\.ipynb .*(?:\n {8}.*)*)", re.MULTILINE)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_says_what_to_change_and_rerun(path):
    cells = json.loads(path.read_text())["cells"]
    prose = "\n".join(source_of(cell) for cell in cells if cell["cell_type"] == "markdown")
    title, _, section = prose.rpartition("\n## ")[2].partition("\n")
    assert title in TITLES, "the last section"
    (command,) = COMMAND.findall(section)
    _, notebook, _, *options = shlex.split(command)
    assert notebook == f"notebooks/{path.name}"
    given = {}
    while options:
        option, *options = options
        if option == "-y":
            given |= yaml.safe_load(options.pop(0))
        else:
            assert option == "-p"
            name, value, *options = options
            given[name] = yaml.safe_load(value)
    check_parameters(path.stem, default_parameters(path), given)
    named = set(re.findall(r"`(\w+)`", section)) & default_parameters(path).keys()
    assert named & given.keys(), "the text names a parameter that the command changes"


ROW = re.compile(r"^\| ((?:\d\d [^|,]+(?:, )?)+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def test_the_readme_names_what_each_chapter_lets_one_swap():
    """A row for every chapter, of parameters that it has."""
    defaults = {path.stem.partition("_")[0]: default_parameters(path) for path in CHAPTERS}
    rows = ROW.findall((CHAPTERS[0].parents[1] / "README.md").read_text(encoding="utf-8"))
    listed = []
    for chapters, *cells in rows:
        numbers = re.findall(r"\d\d", chapters)
        listed += numbers
        named = [set(re.findall(r"`(\w+)`", cell)) for cell in cells]
        assert set.union(*named) <= set().union(*(defaults[number] for number in numbers)), chapters
        assert all(named[1] <= defaults[number].keys() for number in numbers), chapters
    assert sorted(listed) == sorted(defaults)


def test_there_are_chapters():
    assert CHAPTERS


def test_every_chapter_stands_once_in_the_contents():
    contents = yaml.safe_load((CHAPTERS[0].parents[1] / "book" / "_toc.yml").read_text(encoding="utf-8"))
    patterns = [one["glob"] for part in contents["parts"] for one in part["chapters"] if "glob" in one]
    for path in CHAPTERS:
        assert sum(fnmatch(path.name, pattern) for pattern in patterns) == 1, path.stem
