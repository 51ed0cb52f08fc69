import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from invkit.data import load
from invkit.data.folders import SPLITS, files_by_class, labelled_images, place


def fill(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / f"{name}.png")


@pytest.fixture
def folder(tmp_path):
    for name in ("cats", "dogs"):
        fill(tmp_path / name, range(100))
    return tmp_path


def test_no_image_is_in_two_splits_and_none_is_left_out(folder):
    by_split = {split: labelled_images(folder, split) for split in SPLITS}
    every = [pair for pairs in by_split.values() for pair in pairs]
    assert sorted(every) == labelled_images(folder) and len(set(every)) == 200
    assert {label for _, label in every} == {0, 1}
    assert all(len(by_split[split]) > share for split, share in {"train": 55, "inverter": 45, "test": 25}.items())


def test_an_image_stays_in_its_split_when_others_are_added_or_the_folder_is_moved(folder):
    before = {split: {path.relative_to(folder) for path, _ in labelled_images(folder, split)} for split in SPLITS}
    fill(folder / "ants", range(10))
    moved = folder.rename(folder.with_name("moved"))
    for split in SPLITS:
        after = {path.relative_to(moved) for path, _ in labelled_images(moved, split)}
        assert {path for path in after if path.parts[0] != "ants"} == before[split]


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_a_folder_that_is_parted_already_stays_so(tmp_path, validation):
    for part, names in (("train", range(20)), (validation, range(20, 60)), ("test", range(60, 70))):
        for name in ("cats", "dogs"):
            fill(tmp_path / part / name, names)
    stems = {split: {int(path.stem) for path, _ in labelled_images(tmp_path, split)} for split in SPLITS}
    assert stems["train"] == set(range(20)) and stems["test"] == set(range(60, 70))
    assert stems["inverter"] | stems["validation"] == set(range(20, 60))
    assert len(labelled_images(tmp_path)) == 140


@pytest.mark.parametrize("beside", ["val", "test"])
def test_one_folder_beside_the_training_images_serves_inverter_and_test(tmp_path, beside):
    fill(tmp_path / "train" / "cats", range(3))
    fill(tmp_path / "train" / "dogs", range(3))
    fill(tmp_path / beside / "bees", range(40))
    fill(tmp_path / beside / "dogs", range(40))
    for split in ("inverter", "validation", "test"):
        found = labelled_images(tmp_path, split)
        assert {path.relative_to(tmp_path).parts[0] for path, _ in found} == {beside}
        assert {label for _, label in found} == {1, 2}  # cats and dogs as a classifier numbers them, then bees
    assert {label for _, label in labelled_images(tmp_path, "train")} == {0, 1}


def test_without_a_split_all_images_are_loaded(folder):
    assert len(load(f"folder:{folder}")) == len(load(f"folder:{folder}", "all")) == 200
    assert len(load(f"folder:{folder}", "test")) == len(labelled_images(folder, "test"))


def test_too_few_images_for_a_split(tmp_path):
    fill(tmp_path, [0])
    split = next(split for split in SPLITS if split != next(s for s in SPLITS if holds(tmp_path, s)))
    with pytest.raises(ValueError, match=f"leaves no image for the split '{split}': it needs more images"):
        labelled_images(tmp_path, split)


def holds(folder, split):
    try:
        return bool(labelled_images(folder, split))
    except ValueError:
        return False


def test_folders_that_archives_and_disks_add_are_no_classes_and_hold_no_photos(folder):
    before = labelled_images(folder)
    fill(folder / "__MACOSX", range(3))
    fill(folder / "cats" / "@eaDir", range(3))
    fill(folder / "cats" / ".thumbnails", range(3))
    fill(folder / ".trash", range(3))
    assert labelled_images(folder) == before


@pytest.mark.parametrize("added", ["lost+found", "System Volume Information", "#recycle", "@Recycle", "__pycache__"])
def test_what_disks_and_programs_add_shifts_no_label(folder, added):
    before = labelled_images(folder)
    (folder / added).mkdir()
    assert labelled_images(folder) == before
    fill(folder / added, range(3))
    assert labelled_images(folder) == before


def test_names_that_are_no_utf_8_are_read_as_all_others(tmp_path):
    """As an archive of another system leaves them; their split follows from the bytes on the disk."""
    latin = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    for folder in (latin, tmp_path / "ümlaut"):
        fill(folder, range(8))
    (latin / "0.png").rename(os.fsdecode(os.fsencode(latin) + b"/\xff.png"))
    every = labelled_images(tmp_path)
    parts = [labelled_images(tmp_path, split) for split in SPLITS if holds(tmp_path, split)]
    assert len(every) == 16 == sum(map(len, parts)) and {label for _, label in every} == {0, 1}
    assert place(latin) != place(tmp_path)


@pytest.mark.parametrize("home", ["~", "~nobody-of-this-name"])
def test_a_home_that_is_not_there_is_one_sentence(home):
    with pytest.raises(FileNotFoundError, match=r"^There is no folder [^\n]+\.$"):
        labelled_images(Path(home, "no folder of photos"))


def test_a_folder_below_a_hidden_one_or_one_of_an_archive_is_read(tmp_path):
    fill(tmp_path / ".cache" / "__MACOSX" / "mine", range(3))
    assert len(labelled_images(tmp_path / ".cache" / "__MACOSX" / "mine")) == 3


def test_a_split_that_lacks_a_class_keeps_the_numbers_of_the_others(tmp_path):
    for name in ("ants", "bees", "cats"):
        fill(tmp_path / "train" / name, range(2))
    for name in ("bees", "cats"):
        fill(tmp_path / "val" / name, range(2))
    assert [len(files) for files in files_by_class(tmp_path / "val", tmp_path / "train")] == [0, 2, 2]
    assert {label for _, label in labelled_images(tmp_path, "test")} <= {1, 2}
    fill(tmp_path / "val" / "dogs", range(2))
    with pytest.raises(ValueError, match="has the class dogs, which .*train has not"):
        files_by_class(tmp_path / "val", tmp_path / "train")


@pytest.mark.parametrize(
    "names", [("val", "test"), ("Train", "Val"), ("training", "testing"), ("train", "dev"), ("train", "eval")]
)
def test_splits_are_never_taken_for_classes(tmp_path, names):
    for name in names:
        fill(tmp_path / name / "cats", range(2))
    with pytest.raises(ValueError, match="splits, no classes: call them train and val"):
        labelled_images(tmp_path)


def test_other_kinds_of_photos_are_read_or_counted(tmp_path):
    fill(tmp_path, [0])
    for ending in ("gif", "avif"):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"photo.{ending}")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "photo.jfif", format="JPEG")
    for name in ("a.heic", "b.HEIC", "c.dng"):
        (tmp_path / name).write_bytes(b"a phone's")
    with pytest.warns(UserWarning, match=r"3 photos in .* are not read \(.dng, .heic\): convert them to JPEG"):
        images = load(f"folder:{tmp_path}").images
    assert len(images) == 4
    assert torch.allclose(images[1:], torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1), atol=0.05)


def test_links_to_photos_and_to_classes_are_followed_and_others_are_not_entered(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "classes"
    fill(outside / "dogs", range(3))
    fill(folder / "cats", range(2))
    (folder / "cats/linked.png").symlink_to(outside / "dogs/0.png")
    (folder / "cats/all").symlink_to(folder)  # a loop
    (folder / "dogs").symlink_to(outside / "dogs")
    found = [(path.relative_to(folder).as_posix(), label) for path, label in labelled_images(folder)]
    cats = [("cats/0.png", 0), ("cats/1.png", 0), ("cats/linked.png", 0)]
    assert found == [*cats, ("dogs/0.png", 1), ("dogs/1.png", 1), ("dogs/2.png", 1)]
    (outside / "dogs/0.png").unlink()
    with pytest.raises((ValueError, FileNotFoundError), match="cats/linked.png"):
        load(f"folder:{folder}", size=8)
