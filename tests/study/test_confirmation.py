"""Confirmation photos: parted by name, closed until they are opened, and every look counted."""

import pytest
import torch

from invkit.data import Data
from study import confirmation
from study.notebook import StudyError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "confirmation.yaml"
    path.write_text("before: 2\nopenings: []\n")
    return path


@pytest.fixture
def photos():
    names = tuple(f"{number:03}.jpg" for number in range(100))
    return Data(torch.rand(100, 3, 4, 4), torch.arange(100), names)


def test_every_photo_is_in_one_part_whatever_its_folder(photos):
    parts = [confirmation.part_of(name) for name in photos.names]
    assert set(parts) == {"development", "confirmation"} and 30 < parts.count("confirmation") < 70
    assert [confirmation.part_of(f"somewhere/{name}") for name in photos.names] == parts


def test_a_look_takes_an_opening_and_is_counted(photos, file):
    with pytest.raises(StudyError, match="closed: python -m study.confirmation"):
        confirmation.only_part(photos, "confirmation", file)
    confirmation.open_once("a first reason", file)
    with pytest.raises(StudyError, match="open already"):
        confirmation.open_once("a second reason", file)
    taken = confirmation.only_part(photos, "confirmation", file)
    assert confirmation.looks(file) == 3 and "looked at 3 times" in confirmation.part_words("confirmation", file)
    assert "a first reason" in file.read_text()
    with pytest.raises(StudyError, match="closed"):  # one opening, one look
        confirmation.only_part(photos, "confirmation", file)
    others = confirmation.only_part(photos, "development", file)
    assert not set(taken.names) & set(others.names) and len(taken) + len(others) == 100
    row = photos.names.index(taken.names[0])
    assert torch.equal(taken.images[0], photos.images[row]) and taken.labels[0] == row
    assert confirmation.looks(file) == 3, "development photos are free"


def test_what_makes_no_sense_is_told_in_a_sentence(photos, file):
    with pytest.raises(StudyError, match="part is"):
        confirmation.only_part(photos, "test", file)
    with pytest.raises(StudyError, match="Say why"):
        confirmation.open_once("  ", file)
    few = Data(photos.images[:1], photos.labels[:1], photos.names[:1])
    absent = {"development": "confirmation", "confirmation": "development"}[confirmation.part_of(few.names[0])]
    with pytest.raises(StudyError, match="None of the 1 photos"):
        confirmation.only_part(few, absent, file)
    assert confirmation.looks(file) == 2


def test_the_file_in_the_repository_can_be_read():
    assert confirmation.looks() >= 7


@pytest.mark.parametrize(
    "text",
    ["", "[", "5", "before: x\nopenings: []", "before: 1\nopenings: 5", "before: 1\nopenings: [{why: a}]",
     "before: -1\nopenings: []", "before: 1", "\udcff", None],
)  # fmt: skip
def test_a_count_of_looks_that_is_damaged_is_one_sentence_and_stays(file, photos, text):
    file.unlink() if text is None else file.write_text(text, errors="surrogateescape")
    for call in (
        lambda: confirmation.looks(file),
        lambda: confirmation.open_once("why", file),
        lambda: confirmation.only_part(photos, "confirmation", file),
        lambda: confirmation.part_words("confirmation", file),
    ):
        with pytest.raises(StudyError, match=r"how often the photos were looked at: `git checkout [^\n]+`"):
            call()
    assert not file.exists() if text is None else file.read_bytes() == text.encode(errors="surrogateescape")
