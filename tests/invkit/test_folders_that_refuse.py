"""Folders that may only be read or are gone, and full disks: one sentence that names the place, nothing half done."""

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from invkit import cli, store
from invkit.checkpoint import CHECKPOINT
from invkit.data import cache
from invkit.data.photos import write_png
from invkit.training import Player, train

NOBODY = 65534
TENSORS = {"a": torch.arange(3.0)}


def training(folder):
    torch.manual_seed(0)
    player = Player("line", nn.Linear(3, 1), lambda module, batch, step: (module(batch).square().mean(), {}), 1e-2)
    return train(player, lambda step: torch.ones(2, 3), steps=5, folder=folder, progress=False)


@contextmanager
def reading_only(folder):
    """The folder as it is for who may not write to it; root, who always may, is nobody for so long."""
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o755)


@pytest.fixture
def folder():
    """Below a folder that every user may enter, which pytest's own is not."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


def said(call, capsys):
    """The one sentence with which the command line ends."""
    assert cli.run(SimpleNamespace(command=lambda options: call())) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("invkit: ")
    return lines[0]


WRITERS = {
    "weights": lambda folder: store.save(folder, TENSORS, {"made": 2}),
    "card": lambda folder: store.save_card(folder, {"made": 2}),
    "kept tensors": lambda folder: store.kept(folder / "kept.safetensors", lambda: TENSORS),
    "training": training,
    "photo": lambda folder: write_png(folder / "photo.png", torch.rand(3, 4, 4)),
}


@pytest.mark.parametrize("what", WRITERS)
def test_a_folder_that_may_only_be_read_is_told_of_and_stays_as_it_was(folder, capsys, what):
    training(folder / "warm")  # imports what a training needs, as the user that the test began as
    place = folder / "locked"
    store.save(place, TENSORS, {"made": 1})
    (place / store.LOCK).unlink(missing_ok=True)
    before = {file.name: file.read_bytes() for file in place.iterdir()}
    with reading_only(place):
        sentence = said(lambda: WRITERS[what](place), capsys)
    assert str(place) in sentence and "ermission denied" in sentence
    assert {file.name: file.read_bytes() for file in place.iterdir()} == before
    assert store.load(place)[1]["made"] == 1


@pytest.fixture
def disk(folder):
    """A disk of 400 kB, which only root may mount."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("A small disk can only be mounted by root.")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("what", WRITERS)
def test_a_full_disk_is_told_of_and_all_that_was_there_stays(disk, capsys, what):
    place, filler = disk / "place", disk / "filler"
    store.save(place, TENSORS, {"made": 1})
    before = {file.name: file.read_bytes() for file in place.iterdir()}
    filler.write_bytes(bytes(shutil.disk_usage(disk).free))
    sentence = said(lambda: WRITERS[what](place), capsys)
    assert str(place) in sentence and "o space left on device" in sentence
    left = {file.name: file.read_bytes() for file in place.iterdir() if file.is_file()}
    assert {name: content for name, content in left.items() if name in before} == before
    assert not any(content for name, content in left.items() if name not in before)
    filler.unlink()
    WRITERS[what](place)


@pytest.mark.parametrize("what", WRITERS)
@pytest.mark.parametrize("below", ["", "deep/er"])
def test_a_file_in_place_of_a_folder_is_one_sentence_and_stays(tmp_path, capsys, what, below):
    (tmp_path / "taken").write_text("mine")
    assert f"{tmp_path / 'taken'}" in (sentence := said(lambda: WRITERS[what](tmp_path / "taken" / below), capsys))
    assert "is a file, or lies in one: name a folder" in sentence and (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("what", WRITERS)
def test_a_folder_that_cannot_be_made_is_one_sentence(capsys, what):
    """In /proc nobody, not even root, can make one."""
    sentence = said(lambda: WRITERS[what](Path("/proc/x")), capsys)
    assert re.match(r"invkit: /proc/x cannot be made \(No such file or directory\): name a folder", sentence)


def test_what_cannot_be_replaced_is_named_as_the_user_named_it(tmp_path, capsys):
    (tmp_path / "photo.png").mkdir()
    sentence = said(lambda: write_png(tmp_path / "photo.png", torch.rand(3, 4, 4)), capsys)
    assert sentence == f"invkit: {tmp_path / 'photo.png'}: Is a directory."
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_a_finished_training_is_read_from_a_folder_that_may_only_be_read(folder):
    place = folder / "finished"
    found = training(place).ema["line"]
    before = (place / CHECKPOINT).read_bytes()
    (place / CHECKPOINT).chmod(0o644)
    with reading_only(place):
        again = training(place).ema["line"]
    assert all(torch.equal(again[name], found[name]) for name in found) and (place / CHECKPOINT).read_bytes() == before


def test_decoded_photos_need_a_folder_that_can_be_written_to(folder, capsys, monkeypatch):
    (folder / "cache").mkdir()
    write_png(folder / "a.png", torch.rand(3, 4, 4))
    (folder / "a.png").chmod(0o644)
    monkeypatch.setenv("INVKIT_CACHE", "/proc/x")
    assert "/proc/x cannot be made" in said(lambda: cache.decoded([folder / "a.png"], "some"), capsys)
    monkeypatch.setenv("INVKIT_CACHE", str(folder / "cache"))
    with reading_only(folder / "cache"):
        assert "ermission denied" in said(lambda: cache.decoded([folder / "a.png"], "some"), capsys)
    assert cache.decoded([folder / "a.png"], "some").shape == (1, 3, 4, 4)


@pytest.mark.parametrize("what", ["weights", "kept tensors", "photo"])
def test_a_folder_that_disappears_while_it_is_written_to_is_one_sentence(folder, capsys, monkeypatch, what):
    place, fsync = folder / "gone", os.fsync

    def gone(number):
        shutil.rmtree(place)
        fsync(number)

    monkeypatch.setattr(os, "fsync", gone)
    assert f"{place}" in said(lambda: WRITERS[what](place), capsys)
    monkeypatch.undo()
    WRITERS[what](place)
    assert any(place.iterdir())
