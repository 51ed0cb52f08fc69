import hashlib
import shutil
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from invkit import store
from invkit.data import cache, tiny_imagenet
from invkit.data.images import Data
from invkit.data.sources import load, load_bytes

COLOURS = {"n01": (220, 30, 30), "n02": (30, 220, 30), "n03": (30, 30, 220)}


@pytest.fixture
def folder(tmp_path):
    """Two classes, b with three photos and a with one, and an empty class between."""
    for name, colours in {"a": ["red"], "aa": [], "b": ["lime", "blue", "white"]}.items():
        (tmp_path / name).mkdir()
        for i, colour in enumerate(colours):
            Image.new("RGB", (40, 30), colour).save(tmp_path / name / f"{i}.JPEG", quality=95)
    return tmp_path


def test_samples_are_twenty_imagenet_photos_with_their_classes():
    data = load("samples")
    assert data.images.shape == (20, 3, 224, 224) and data.images.dtype == torch.float32
    assert data.labels.dtype == torch.int64 and data.labels[:3].tolist() == [243, 559, 438]
    assert data.names[0] == "imagenet_00_243"


def test_photos_add_unlabelled_everyday_ones():
    data = load("photos", size=48)
    assert data.images.shape == (25, 3, 48, 48) and data.labels[20:].tolist() == [-1] * 5
    assert data.names[20:] == ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket")
    assert data.images.flatten(1).std(dim=1).min() > 0.05  # none is blank


def test_subsets_are_nested_ordered_and_set_by_the_seed():
    whole, five, eight = load("samples", size=16), load("samples", n=5, size=16), load("samples", n=8, size=16)
    assert set(five.names) < set(eight.names) and list(eight.names) == sorted(eight.names)
    assert torch.equal(five.images[0], whole.images[whole.names.index(five.names[0])])
    assert load("samples", n=5, seed=1, size=16).names != five.names


def test_folder_of_classes(folder):
    data = load(f"folder:{folder}", size=20)
    assert data.labels.tolist() == [0, 2, 2, 2] and data.names == ("0", "0", "1", "2")  # "aa" keeps its number
    assert data.images[0, 0].mean() > 0.9 and data.images[0, 1].mean() < 0.1


def test_flat_folder_has_no_labels(folder):
    assert load(f"folder:{folder / 'b'}").labels.tolist() == [-1] * 3


def test_folder_errors_are_one_sentence(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        load(f"folder:{folder / 'gone'}")
    with pytest.raises(ValueError, match="holds no image"):
        load(f"folder:{folder / 'aa'}")
    with pytest.raises(ValueError, match="only 4 images, not 9"):
        load(f"folder:{folder}", n=9)
    shutil.rmtree(folder / "a")
    with pytest.raises(ValueError, match="one class only, b: add others, or give folder:"):
        load(f"folder:{folder}")
    Image.new("RGB", (8, 8)).save(folder / "stray.png")
    with pytest.raises(ValueError, match="holds images and folders of images"):
        load(f"folder:{folder}")


def test_one_damaged_file_is_named(folder):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(folder / "b" / "1.JPEG")
    whole = (folder / "b" / "1.JPEG").read_bytes()
    (folder / "b" / "1.JPEG").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="1.JPEG cannot be read"):
        load(f"folder:{folder}", size=20)


def test_mixed_sizes_need_a_size(folder):
    Image.new("RGB", (41, 30)).save(folder / "b" / "9.png")
    with pytest.raises(ValueError, match="9.png is 41x30 pixels, the first 40x30: give size="):
        load(f"folder:{folder}")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "cats"}, "no data set 'cats'"),
        ({"name": "folder:"}, "no data set"),
        ({"name": "samples:x"}, "no data set"),
        ({"name": "samples", "split": "train"}, "only the split 'test'"),
        ({"name": "faces", "split": "train"}, "only the split 'inverter' or 'validation' or 'test'"),
        ({"name": "faces:x"}, "no data set 'faces:x'"),
        ({"name": "glyphs:grey"}, "no world 'grey'"),
        ({"name": "glyphs", "seed": -1}, "seed must be"),
        ({"name": "samples", "n": 0}, "n must be"),
        ({"name": "samples", "size": 3.5}, "size must be"),
        ({"name": "samples", "n": 21}, "only 20 images"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        load(**arguments)


def test_data_checks_itself():
    images, labels = torch.rand(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="names holds 1 for 2"):
        Data(images, labels, ("one",))
    with pytest.raises(ValueError, match="latents holds 3"):
        Data(images, labels, ("one", "two"), latents=torch.zeros(3, 5))
    with pytest.raises(TypeError, match="int64"):
        Data(images, labels.float(), ("one", "two"))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        Data(images * 2 + 1, labels, ("one", "two"))


def test_faces_come_with_their_latents():
    data = load("faces", n=3, seed=5)
    assert data.images.shape == (3, 3, 64, 64) and data.latents.shape == (3, 100)
    assert torch.equal(data.latents, load("faces", n=3, seed=5).latents)
    assert not torch.equal(data.latents, load("faces", n=3, seed=6).latents)
    assert load("faces", n=2, size=32).images.shape == (2, 3, 32, 32)
    drawn = [load("faces", split=split, n=20, seed=5).latents for split in ("test", "validation", "inverter")]
    assert torch.cdist(torch.cat(drawn), torch.cat(drawn)).fill_diagonal_(9).min() > 1  # no latent is in two splits


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Tiny ImageNet as it is published, with three classes of 20 images, each of one colour; and a cache of its own."""
    monkeypatch.setenv("INVKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("INVKIT_DATA", str(tmp_path))
    root = tmp_path / "tiny-imagenet-3"
    (root / "val" / "images").mkdir(parents=True)
    rows = []
    for number, (name, colour) in enumerate(COLOURS.items()):
        (root / "train" / name / "images").mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (8, 8), colour).save(root / "train" / name / "images" / f"{name}_{i}.JPEG")
        Image.new("RGB", (8, 8), colour).save(root / "val" / "images" / f"val_{2 - number}.JPEG")
        rows.append(f"val_{2 - number}.JPEG\t{name}\t0\t0\t7\t7\n")
    (root / "val" / "val_annotations.txt").write_text("".join(rows) + "val_9.JPEG\tn99\t0\t0\t7\t7\n")
    return root


def colour_class(images):
    """The channel that is brightest: the class, in `tiny`."""
    return images.float().mean((2, 3)).argmax(1)


def test_tiny_imagenet_is_parted_once_for_all(tiny):
    parts = {split: load("tiny-imagenet", split=split) for split in tiny_imagenet.SPLITS}
    assert [len(parts[split]) for split in tiny_imagenet.SPLITS] == [30, 27, 3, 3]
    names = [name for split in ("train", "inverter", "validation") for name in parts[split].names]
    assert len(set(names)) == 60  # all of the published training images, and none twice
    for part in parts.values():
        assert torch.equal(colour_class(part.images), part.labels) and part.labels.unique().numel() == 3
    assert parts["test"].names == ("val_2", "val_1", "val_0")
    assert load(f"tiny-imagenet:{tiny}", split="train").names == parts["train"].names
    few = load("tiny-imagenet", split="train", n=4, size=16)
    assert few.images.shape == (4, 3, 16, 16) and set(few.names) < set(parts["train"].names)


def test_photos_are_decoded_once_and_again_when_one_changes(tiny, monkeypatch):
    images, labels = load_bytes("tiny-imagenet")
    assert images.shape == (30, 3, 8, 8) and images.dtype == torch.uint8 and torch.equal(colour_class(images), labels)
    (left,) = cache.cache_folder().glob("*.npy")
    left.with_name(f".{left.name}.99999999.partial").write_bytes(b"what a killed run left")
    read = []
    monkeypatch.setattr(cache, "read_photo", lambda path, reader=cache.read_photo: read.append(path) or reader(path))
    assert torch.equal(load_bytes("tiny-imagenet")[0], images) and not read

    name = load("tiny-imagenet", split="train").names[0]
    Image.new("RGB", (8, 8), "white").save(tiny / "train" / "n01" / "images" / f"{name}.JPEG")
    assert load_bytes("tiny-imagenet")[0][0].min() > 250 and read
    assert len(list(cache.cache_folder().glob("*.npy*"))) == 1  # the older array and the partial one are gone


def test_a_damaged_photo_in_the_middle_is_named_and_nothing_is_kept(tiny):
    name = load("tiny-imagenet", split="inverter").names[10]
    shutil.rmtree(cache.cache_folder())
    file = next(tiny.rglob(f"{name}.JPEG"))
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=f"{name}.JPEG (cannot be read|is not an image)"):
        load("tiny-imagenet", split="inverter", n=2)
    assert not list(cache.cache_folder().glob("*.npy*"))
    Image.new("RGB", (9, 8)).save(file)
    with pytest.raises(ValueError, match=f"{name}.JPEG is 9x8 pixels, the first 8x8"):
        load("tiny-imagenet", split="inverter")


def test_incomplete_archives_are_answered_in_one_sentence(tiny):
    (tiny.parent / "tiny-imagenet-4").mkdir()
    with pytest.raises(ValueError, match="tiny-imagenet-3 and tiny-imagenet-4: give the path of one"):
        load("tiny-imagenet")
    with pytest.raises(ValueError, match="holds no class"):
        load(f"tiny-imagenet:{tiny.parent / 'tiny-imagenet-4'}")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        load(f"tiny-imagenet:{tiny.parent / 'gone'}")
    (tiny / "val" / "val_annotations.txt").unlink()
    with pytest.raises(FileNotFoundError, match="val_annotations.txt: unpack the official archive again"):
        load(f"tiny-imagenet:{tiny}")
    shutil.rmtree(tiny / "train" / "n02" / "images")
    with pytest.raises(ValueError, match="n02 holds no image: fill it, or delete the folder"):
        load(f"tiny-imagenet:{tiny}", split="train")
    shutil.rmtree(tiny / "train" / "n02")
    shutil.rmtree(tiny / "train" / "n03")
    with pytest.raises(ValueError, match="holds only the class n01: it needs a folder for each of 2"):
        load(f"tiny-imagenet:{tiny}", split="train")


def test_a_table_with_spaces_for_tabs_is_told_of_by_name(tiny):
    table = tiny / "val" / "val_annotations.txt"
    table.write_text(table.read_text().replace("\t", " "))
    with pytest.raises(ValueError, match="val_annotations.txt has no tab between file and class"):
        load("tiny-imagenet")


@pytest.mark.parametrize("damage", ["cut", "empty", "header"])
def test_a_damaged_array_of_photos_is_decoded_anew_with_a_word(tiny, damage):
    images = load_bytes("tiny-imagenet")[0].clone()
    (array,) = cache.cache_folder().glob("*.npy")
    content = array.read_bytes()
    array.write_bytes({"cut": content[:-50], "empty": b"", "header": content.replace(b"(30, ", b"(3, ")}[damage])
    with pytest.warns(UserWarning, match="is damaged: the photos are decoded anew"):
        assert torch.equal(load_bytes("tiny-imagenet")[0], images)
    assert torch.equal(load_bytes("tiny-imagenet")[0], images)


DIES = """
import os, signal, sys
from pathlib import Path
from invkit.data import cache
def dies(*arguments):
    print("decoding", flush=True)
    input()
    os.kill(os.getpid(), signal.SIGKILL)
cache._decode = dies
cache.decoded([Path(sys.argv[1])], "some")
"""


def test_who_waits_for_photos_says_so_and_begins_where_the_one_that_decodes_dies(tmp_path, monkeypatch):
    monkeypatch.setenv("INVKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(store, "SOON", 0.01)
    Image.new("RGB", (4, 3), "white").save(tmp_path / "a.png")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    other = subprocess.Popen([sys.executable, "-c", DIES, tmp_path / "a.png"], **pipes)
    assert other.stdout.readline() == "decoding\n"
    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="some.lock: waiting for it, 0.02 s at most"):
        patch.setattr(cache, "LONGEST_WAIT", 0.02)
        with pytest.raises(TimeoutError, match="some.lock"):
            cache.decoded([tmp_path / "a.png"], "some")
    threading.Timer(0.1, lambda: other.communicate("\n")).start()
    with pytest.warns(UserWarning, match="Another process holds .*some.lock: waiting for it"):
        assert cache.decoded([tmp_path / "a.png"], "some").min() == 255


def test_without_a_home_the_sentence_names_the_variable(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("INVKIT_CACHE", raising=False)
    monkeypatch.setattr(cache.Path, "home", homeless)
    with pytest.raises(FileNotFoundError, match="name one by INVKIT_CACHE"):
        cache.cache_folder()


@pytest.fixture
def server(tmp_path):
    """A folder and the address it is served under."""
    (tmp_path / "server").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "server")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield tmp_path / "server", f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_an_absent_archive_is_downloaded_checked_and_unpacked(tiny, server, tmp_path, monkeypatch):
    folder, address = server
    packed = Path(shutil.make_archive(folder / "tiny-imagenet-3", "zip", tmp_path, "tiny-imagenet-3"))
    shutil.move(tiny, folder)
    monkeypatch.setattr(tiny_imagenet, "REPOSITORY", tmp_path / "nowhere")
    url, md5 = f"{address}/{packed.name}", hashlib.md5(packed.read_bytes()).hexdigest()

    def load_from(url, md5):
        for name, value in {"NAME": "tiny-imagenet-3", "URL": url, "MD5": md5}.items():
            monkeypatch.setattr(tiny_imagenet, name, value)
        return load("tiny-imagenet", split="train")

    for wrong in ((url, "0" * 32), (f"{address}/gone.zip", md5), ("http://127.0.0.1:9/offline.zip", md5)):
        with pytest.raises(
            FileNotFoundError, match="no tiny-imagenet-3 in .* could not be downloaded whole .*: go onl"
        ):
            load_from(*wrong)
        assert [child.name for child in tmp_path.iterdir()] == ["server"]  # nothing half-done is left
    assert len(load_from(url, md5)) == 30 and tiny.is_dir()
    assert {child.name for child in tmp_path.iterdir()} == {"server", "cache", "tiny-imagenet-3"}


def test_an_archive_writes_nothing_outside_its_folder_and_makes_no_links(server, tmp_path, monkeypatch):
    packed, root = server[0] / "some.zip", tmp_path / "data"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("some/../../../outside.txt", "beyond")
        link = zipfile.ZipInfo("some/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(tmp_path))
    digest = hashlib.md5(packed.read_bytes()).hexdigest()
    for name, value in {"NAME": "some", "URL": f"{server[1]}/some.zip", "MD5": digest}.items():
        monkeypatch.setattr(tiny_imagenet, name, value)
    assert tiny_imagenet._download(root) == root / "some"
    assert not (root / "some/link").is_symlink() and {path.name for path in tmp_path.iterdir()} == {"data", "server"}
    assert [path.name for path in root.iterdir()] == ["some"]


def test_a_folder_is_read_as_bytes_or_as_floats(tmp_path):
    for i in range(20):
        Image.new("RGB", (12, 9), (12 * i, 255, 0)).save(tmp_path / f"{i}.png")
    split = load(f"folder:{tmp_path}", "inverter", size=8)
    images, labels = load_bytes(f"folder:{tmp_path}", "inverter", size=8)
    assert images.dtype == torch.uint8
    torch.testing.assert_close(images.float() / 255, split.images, rtol=0, atol=0.51 / 255)
    assert torch.equal(labels, split.labels) and len(images) > 3
    few, _ = load_bytes(f"folder:{tmp_path}", "inverter", most=3, size=8)
    (rows,) = (images[:, 0, 0, 0] == few[:, 0, 0, 0, None]).any(0).nonzero(as_tuple=True)
    assert len(few) == 3 and torch.equal(images[rows], few)
    assert len(load_bytes(f"folder:{tmp_path}", "inverter", most=99, size=8)[0]) == len(images)


@pytest.mark.parametrize("most", [0, -1, "3", 10**12])
def test_how_many_of_a_folder_is_a_whole_number(tmp_path, most):
    with pytest.raises(ValueError, match="most must be"):
        load_bytes(f"folder:{tmp_path}", most=most, size=8)


def test_what_is_small_or_drawn_is_not_kept_as_bytes():
    with pytest.raises(ValueError, match="Only tiny-imagenet, imagenet and folders are kept as bytes, not 'glyphs'"):
        load_bytes("glyphs")


def test_an_archive_that_could_lie_nowhere_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(tiny_imagenet, "REPOSITORY", tmp_path)
    monkeypatch.setenv("INVKIT_DATA", "/proc/x")
    with pytest.raises(FileNotFoundError, match="^/proc/x cannot be made .*: name a folder"):
        load("tiny-imagenet")
