import os
import re
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

import invkit.inverters
from invkit import store
from invkit.cli import main
from invkit.data.photos import fit, read_photo
from invkit.fit import _depths as fit_depths

REPOSITORY = Path(__file__).resolve().parents[2]


class Thumbnails:
    """An "inverter" of 16-pixel images whose representation at depth K is the image shrunk by 2^K."""

    size = 16
    depths = [1, 2]

    def represent(self, images, depth=None):
        return F.avg_pool2d(images, 2**depth)

    def reconstruct(self, images, depth=None, noise=None, *, search=0):
        return F.interpolate(self.represent(images, depth), size=(16, 16))


class Mirror:
    """An "inverter" of a single depth that has no search."""

    size = 16
    depths = [5]

    def reconstruct(self, images, depth=None, noise=None, *, search=0):
        if search:
            raise ValueError("A mirror has no search: leave out search.")
        return images.flip(-1)


@pytest.fixture(autouse=True)
def inverters(monkeypatch):
    shipped = {"thumbnails": Thumbnails, "mirror": Mirror}

    def load(name, trust=False):
        if name == "own" and not trust:
            raise ValueError("This inverter's card names more than a shipped network: trust=True makes it.")
        return shipped.get(name, Mirror)()

    monkeypatch.setattr(invkit.inverters, "load_inverter", load)


@pytest.fixture
def photos(tmp_path):
    """Two good photos, 40 x 20 and 20 x 30."""
    generator = torch.Generator().manual_seed(0)
    for name, size in {"wide.png": (20, 40), "tall.jpg": (30, 20)}.items():
        Image.fromarray(torch.randint(0, 256, (*size, 3), generator=generator).byte().numpy()).save(tmp_path / name)
    return tmp_path


def invert(*photos, out, inverter="thumbnails", depth=None, search=None, keep_going=False, trust=False):
    options = ["--depth", str(depth)] if depth is not None else []
    options += ["--keep-going"] * keep_going + ["--trust"] * trust
    options += ["--search", str(search)] if search is not None else []
    return main(["invert", *map(str, photos), "--inverter", inverter, "--out", str(out), *options])


def test_invert_writes_reconstruction_and_side_by_side(photos, tmp_path, capsys):
    assert invert(photos / "wide.png", photos / "tall.jpg", out=tmp_path / "new" / "out", depth=1) == 0
    names = sorted(file.name for file in (tmp_path / "new" / "out").iterdir())
    assert names == [f"{stem}_{kind}.png" for stem in ("tall", "wide") for kind in ("reconstruction", "side_by_side")]

    original = fit(read_photo(photos / "wide.png"), 16)[0]
    expected = Thumbnails().reconstruct(original[None], 1)[0]
    side_by_side = read_photo(tmp_path / "new" / "out" / "wide_side_by_side.png")
    torch.testing.assert_close(side_by_side, torch.cat([original, expected], dim=2), atol=1 / 255, rtol=0)
    assert torch.equal(side_by_side[:, :, 16:], read_photo(tmp_path / "new" / "out" / "wide_reconstruction.png"))

    said = capsys.readouterr().out
    assert "40x20 pixels cropped to the central 20x20, resized to 16x16" in said
    stated = float(re.search(r"thumbnails, depth 1: PSNR ([\d.]+) dB", said)[1])
    assert stated == pytest.approx(-10 * (expected - original).square().mean().log10().item(), abs=0.06)


def test_the_deepest_is_the_default(photos, tmp_path, capsys):
    assert invert(photos / "wide.png", out=tmp_path) == 0 and "depth 2" in capsys.readouterr().out


def test_a_network_of_one_s_own_is_made_from_a_card_only_where_it_is_trusted(photos, tmp_path, capsys):
    assert invert(photos / "wide.png", out=tmp_path / "out", inverter="own") == 1
    assert "names more than a shipped network: --trust makes it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert invert(photos / "wide.png", out=tmp_path / "out", inverter="own", trust=True) == 0


def test_an_inverter_of_one_depth_without_a_search(photos, tmp_path, capsys):
    assert invert(photos / "wide.png", out=tmp_path / "out", inverter="mirror") == 0
    original = fit(read_photo(photos / "wide.png"), 16)[0]
    result = read_photo(tmp_path / "out" / "wide_reconstruction.png")
    torch.testing.assert_close(result, original.flip(-1), atol=1 / 255, rtol=0)
    assert invert(photos / "wide.png", out=tmp_path / "out", inverter="mirror", depth=1) == 1
    assert "inverts depth 5 alone, not 1" in capsys.readouterr().err
    assert invert(photos / "wide.png", out=tmp_path / "out", inverter="mirror", search=3) == 1
    assert "leave out search" in capsys.readouterr().err


def test_one_bad_photo_and_nothing_is_written(photos, tmp_path, capsys):
    whole = (photos / "tall.jpg").read_bytes()
    (photos / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.png").touch()
    (photos / "text.png").write_text("not a photo")
    for bad in ("half.jpg", "empty.png", "text.png", "gone.png"):
        assert invert(photos / "wide.png", photos / bad, out=tmp_path / "out") == 1
        said = capsys.readouterr()
        assert said.out == "" and said.err.count("\n") == 1 and bad in said.err
    assert not (tmp_path / "out").exists()


def test_what_is_no_file_is_a_sentence(photos, tmp_path, capsys):
    os.mkfifo(photos / "pipe.png")
    (photos / "loop.png").symlink_to(photos / "loop.png")
    for bad, words in (
        (photos / "pipe.png", "is a pipe or a device"),
        ("/dev/null", "is a pipe or a device"),
        ("-", "does not exist"),
        (photos / "loop.png", "does not exist"),
    ):
        assert invert(photos / "wide.png", bad, out=tmp_path / "out") == 1
        said = capsys.readouterr()
        assert words in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_too_long_fails_before_anything_is_computed(photos, tmp_path, capsys, monkeypatch):
    long = photos / f"{'ü' * 110}.png"
    long.write_bytes((photos / "wide.png").read_bytes())
    monkeypatch.setattr(Thumbnails, "reconstruct", None)
    assert invert(photos / "tall.jpg", long, out=tmp_path / "out") == 1
    assert "is too long for a file: rename the photo" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "given",
    [
        {"out": "a" * 5000},
        {"out": "o/" * 2500},
        {"inverter": "a" * 5000},
        {"photo": "a" * 5000},
        {"photo": "a" * 240},
        {"photo": "d/" * 900},
        {"photo": "two\nlines \x1b[31m.png"},
        {"out": "a\0b"},
    ],
)
def test_what_is_long_or_no_text_is_quoted_on_one_short_line(photos, capsys, monkeypatch, given):
    monkeypatch.undo()  # inverters are looked for by their names
    monkeypatch.chdir(photos)
    before = sorted(photos.iterdir())
    given = {"photo": "wide.png", "inverter": "ffi-glyphs-robust", "out": "out"} | given
    assert invert(given["photo"], inverter=given["inverter"], out=given["out"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and len(said.err) < 1500 and said.err[:-1].isprintable()
    assert sorted(photos.iterdir()) == before


@pytest.mark.parametrize("arguments", [["a" * 5000], ["invert", "x", "--depth", "a" * 5000], ["list", "a" * 5000]])
def test_a_command_that_is_none_is_told_of_briefly(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and len(capsys.readouterr().err.splitlines()[-1]) < 500


def test_with_keep_going_bad_photos_are_named_last_and_the_others_done(photos, tmp_path, capsys):
    (photos / "text.png").write_text("not a photo")
    (photos / "empty.png").touch()
    bad = photos / "text.png", photos / "empty.png"
    assert invert(bad[0], photos / "wide.png", bad[1], photos / "tall.jpg", out=tmp_path / "out", keep_going=True) == 1
    said = capsys.readouterr()
    assert said.out.count("PSNR") == 2 and len(list((tmp_path / "out").iterdir())) == 4
    assert re.match(r"invkit: 2 of 4 photos were left out: .*text.png .*empty.png .*\n$", said.err)


def test_each_photo_is_written_when_it_is_done_and_then_forgotten(photos, tmp_path, monkeypatch):
    """Memory does not grow with the number of photos."""
    images = []

    def reconstruct(self, image, depth=None, noise=None, *, search=0):
        images.append(weakref.ref(image))
        assert len(list((tmp_path / "out").glob("*"))) == 2 * (len(images) - 1)
        assert sum(reference() is not None for reference in images) <= 2
        return image.clone()

    monkeypatch.setattr(Thumbnails, "reconstruct", reconstruct)
    many = [photos / f"{i}.png" for i in range(12)]
    for photo in many:
        photo.write_bytes((photos / "wide.png").read_bytes())
    assert invert(*many, out=tmp_path / "out") == 0 and len(images) == 12


def test_stopped_by_a_signal_a_training_leaves_with_the_number_of_the_signal(tmp_path):
    """And with one sentence; the same command goes on."""
    code = (
        "import os, signal, sys, accelerate, torch._dynamo; from torch import nn; from invkit import cli, training\n"
        "from types import SimpleNamespace as Options\n"
        "def batches(step):\n"
        "    if step == 20: os.kill(os.getpid(), getattr(signal, name))\n"
        "    return torch.rand(2, 3, generator=torch.Generator().manual_seed(step))\n"
        "def command(options):\n"
        "    player = training.Player('line', nn.Linear(3, 1), lambda m, x, s: (m(x).square().mean(), {}), 1e-3)\n"
        "    training.train(player, batches, steps=200, folder=sys.argv[1] + name, ema=None, progress=False)\n"
        "for name in sys.argv[2:]:\n"  # each in a process of its own; what takes seconds to import, they share
        "    if not (child := os.fork()):\n"
        "        sys.exit(cli.run(Options(command=command)))\n"
        "    print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, f"{tmp_path}/", "SIGTERM", "SIGINT"]
    said = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stderr
    stopped = r"[^\n]*Training stopped after step (1\d|2[01]) of 200; the same call goes on from [^\n]*\n"
    assert re.fullmatch(f"{stopped}SIGTERM 143\n{stopped}SIGINT 130\n", said), said


def test_a_depth_that_is_not_there(photos, tmp_path, capsys):
    for depth in (0, 3, -1):
        assert invert(photos / "wide.png", out=tmp_path / "out", depth=depth) == 1
        assert f"inverts depths 1 to 2, not {depth}." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_results_never_replace_each_other_or_a_photo(photos, tmp_path, capsys):
    (photos / "wide.jpg").write_bytes((photos / "tall.jpg").read_bytes())
    assert invert(photos / "wide.png", photos / "wide.jpg", out=tmp_path / "out") == 1
    assert "'wide' would replace each other" in capsys.readouterr().err
    (photos / "wide_reconstruction.png").write_bytes((photos / "wide.png").read_bytes())
    assert invert(photos / "wide.png", photos / "wide_reconstruction.png", out=photos) == 1
    assert "would replace the photo" in capsys.readouterr().err
    assert invert(photos / "tall.jpg", out=photos / "wide.png") == 1
    assert "is a file" in capsys.readouterr().err


def test_a_failing_disk_is_one_sentence(photos, tmp_path, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert invert(photos / "wide.png", out=tmp_path / "out") == 1
    file = tmp_path / "out" / "wide_reconstruction.png"
    assert capsys.readouterr().err == f"invkit: {file}: No space left on device.\n" and not list(file.parent.iterdir())


def test_outside_the_environment_the_sentence_says_so(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "invkit.report", None)  # as a package that is not installed
    monkeypatch.delitem(vars(invkit), "report", raising=False)
    assert main(["report", "lite0", "--out", "nowhere"]) == 1
    said = capsys.readouterr().err
    assert "activate the environment that holds it" in said and said.count("\n") == 1


def test_describe_names_every_block(capsys):
    assert main(["describe", "lite0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines if re.match(r"\d", line)]
    assert "224x224" in lines[0] and "1000 classes" in lines[0]
    assert [int(row[0]) for row in table] == list(range(1, 20))
    # depth 3: 6 convolutions, stride 4, half the image's numbers
    assert table[2][2:] == ["24x56x56", "6", "4", "0.500", "yes"]
    assert lines[-1].endswith("if named")
    assert main(["describe", "nothing"]) == 1 and "'nothing'" in capsys.readouterr().err


OWN_NETWORKS = """
from torch import nn

def mlp():
    layers = [nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 4)]
    return sized(nn.Sequential(*layers))

def convolution():
    return sized(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)))

class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.map, self.few, self.many = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 2), nn.Linear(4, 7)

    def forward(self, x):
        x = self.map(x).mean((2, 3))
        return {"coarse": self.few(x), "fine": self.many(x)}

def several():
    return sized(Several())

def sized(network):
    network.size = 8
    return network
"""


@pytest.mark.parametrize(
    ("factory", "can", "by_itself"), [("mlp", ["yes", "yes"], 2), ("convolution", ["yes", "if named"], 1)]
)
def test_describe_says_which_depths_an_inverter_takes(factory, can, by_itself, tmp_path, monkeypatch, capsys):
    (tmp_path / "described_networks.py").write_text(OWN_NETWORKS)
    monkeypatch.chdir(tmp_path)
    assert main(["describe", f"described_networks:{factory}"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if re.match(r"\d", line)]
    assert [re.split(r"  +", line)[-1] for line in table] == can
    classifier = invkit.load_classifier(f"described_networks:{factory}")
    del sys.modules["described_networks"]
    assert fit_depths(classifier, None)[-1] == by_itself and fit_depths(classifier, [2]) == [2]


def test_describe_picks_one_of_several_outputs(tmp_path, monkeypatch, capsys):
    (tmp_path / "described_networks.py").write_text(OWN_NETWORKS)
    monkeypatch.chdir(tmp_path)
    assert main(["describe", "described_networks:several"]) == 1
    assert "pick one by --output KEY; dict has 'coarse'" in capsys.readouterr().err
    assert main(["describe", "described_networks:several", "--output", "fine"]) == 0
    assert "7 classes" in capsys.readouterr().out
    del sys.modules["described_networks"]


def test_list_reads_the_cards(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("INVKIT_WEIGHTS", str(tmp_path))
    assert main(["list"]) == 0 and "none in" in capsys.readouterr().out
    card = {"method": "dci", "network": "lite0", "size": 224, "shapes": [[3, 224, 224], [32, 112, 112], [16, 112, 112]]}
    store.save(tmp_path / "mine", {"w": torch.zeros(1)}, card)
    store.save(tmp_path / "theirs", {"w": torch.zeros(1)}, {**card, "method": "dci-gan", "network": "facegan"})
    store.save(tmp_path / "read", {"w": torch.zeros(1)}, {"method": "ffi", "network": "lite0", "size": 64})
    store.save(tmp_path / "glyphs", {"w": torch.zeros(1)}, {"method": "classifier"})
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("classifiers: lite0, glyphs, timm:NAME") and not lines[1].startswith("glyphs")
    mine, theirs = (line for line in lines if line.startswith(("mine", "theirs")))
    assert mine.split() == ["mine", "1-2", "lite0", "dci", "224x224"]
    assert "facegan" in theirs and "to the latent" in theirs
    assert any(line.split() == ["read", "the", "logits", "lite0", "ffi", "64x64"] for line in lines)


def test_as_a_program(tmp_path):
    def run(*arguments):
        return subprocess.run([sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True)

    missing = run("-m", "invkit", "invert", "gone.png", "--inverter", "dci-lite0", "--out", str(tmp_path / "new"))
    assert missing.returncode == 1 and missing.stderr.count("\n") == 1 and missing.stdout == ""
    assert not (tmp_path / "new").exists()
    assert run("-m", "invkit", "invert").returncode == 2  # usage
    code = "import sys, invkit.cli; sys.exit('torch' in sys.modules)"
    assert run("-c", code).returncode == 0


@pytest.mark.parametrize("name, depth", [("dci-lite0", 3), ("dci-facegan", None)])
def test_the_shipped_inverters(name, depth, photos, tmp_path, capsys, monkeypatch):
    if name not in store.shipped():
        pytest.skip(f"the weights of {name} are not in {store.weights_folder()}")
    monkeypatch.undo()
    assert invert(photos / "wide.png", out=tmp_path / "out", inverter=name, depth=depth) == 0
    assert "PSNR" in capsys.readouterr().out and len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.parametrize("card", ['{"network": 1}', '{"network": "a", "method": "dci"}', '{"network": "a", "size": 8}'])
def test_a_card_in_the_list_that_says_too_little_is_one_sentence(tmp_path, monkeypatch, capsys, card):
    monkeypatch.setenv("INVKIT_WEIGHTS", str(tmp_path))
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/model.safetensors").touch()
    (tmp_path / "odd/card.json").write_text(card)
    assert main(["list"]) == 1
    assert "odd/card.json is no card: fetch or train it again" in capsys.readouterr().err
