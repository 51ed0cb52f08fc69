"""Every chapter's source has what the study needs of it."""

import json
import re
from pathlib import Path

import pytest

from study.notebook import default_parameters, source_of

CHAPTERS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
class TestChapter:
    def test_is_named_so_that_the_book_finds_it(self, path):
        assert re.fullmatch(r"[01]\d_[a-z0-9_]+", path.stem)

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
        assert f'study = notebook.open("{path.stem}")' in code[1]
        assert code[-1].strip().endswith("study.stamp()")


def test_there_are_chapters():
    assert CHAPTERS
