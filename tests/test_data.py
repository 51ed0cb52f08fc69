import numpy as np
import pytest
import torch
from PIL import Image

from invkit.data import Data, load


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
    Image.new("RGB", (8, 8)).save(folder / "stray.png")
    with pytest.raises(ValueError, match="both images and folders"):
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
    pytest.importorskip("invkit.generators")
    data = load("faces", n=3, seed=5)
    assert data.images.shape == (3, 3, 64, 64) and data.latents.shape == (3, 100)
    assert torch.equal(data.latents, load("faces", n=3, seed=5).latents)
    assert not torch.equal(data.latents, load("faces", n=3, seed=6).latents)
    assert load("faces", n=2, size=32).images.shape == (2, 3, 32, 32)
