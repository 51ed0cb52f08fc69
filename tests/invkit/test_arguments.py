import subprocess
import sys
from pathlib import Path

import pytest

from invkit import arguments
from invkit.arguments import check_report
from invkit.data.sources import SOURCES
from invkit.network import reach
from invkit.network.wheels import WHEELS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/one.png").write_bytes(b"not looked into")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.pth").write_bytes(b"not looked into")
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "ownmodule.py").write_text("import os\ndef network(classes=3):\n    inner = 1\nother = network\n")
    (tmp_path / "starmodule.py").write_text("from somewhere import *\n")
    (tmp_path / "mine.onnx").write_bytes(b"not looked into")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reach, "reachable", lambda url: True)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "classifier",
    [*arguments.OWN, "mine.onnx", "glyphs-standard-0", "timm:whatever", "torchvision:resnet18", "photos",
     "ownmodule:network", "ownmodule:other", "starmodule:network"],
)  # fmt: skip
def test_what_may_work_passes(folder, classifier):
    check_report(classifier, "mine.pth", "folder:photos", 0.5, [1, 4], "report")
    check_report(classifier, None, "glyphs", 10, 4, None)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"classifier": "resnet18"}, ValueError, "no classifier 'resnet18'.*timm:resnet18 or torchvision:resnet18"),
        ({"classifier": "mine.pth"}, ValueError, "file of weights: give mymodule:factory.*weights='mine.pth'"),
        ({"classifier": "yours.onnx"}, FileNotFoundError, "no file yours.onnx"),
        ({"classifier": "ownmodule.py:network"}, ValueError, "is a file: give ownmodule:network in the folder"),
        ({"classifier": "./ownmodule.py"}, ValueError, "is a file: give ownmodule:factory in the folder"),
        ({"classifier": ""}, ValueError, "classifier is a name"),
        ({"classifier": "nomodule:network"}, ValueError, "no module 'nomodule', looked for in .* PYTHONPATH"),
        ({"classifier": "no.such.module:f"}, ValueError, "no module 'no.such.module'"),
        ({"classifier": "ownmodule:netwrok"}, ValueError, r"ownmodule.py has no 'netwrok'; .* are network\."),
        ({"weights": "notes.txt"}, ValueError, "does not end in .safetensors or .pth or .pt"),
        ({"weights": "yours.pth"}, FileNotFoundError, "no file of weights yours.pth .looked for from"),
        ({"images": "folder:nowhere"}, FileNotFoundError, "no folder nowhere"),
        ({"images": "folder:"}, FileNotFoundError, "check the path"),
        ({"images": "folder:empty"}, ValueError, "holds no image"),
        ({"images": "photos"}, ValueError, "no data set 'photos' to train on: give \"folder:photos\""),
        ({"images": "nowhere"}, ValueError, "no data set 'nowhere' to train on: give \"folder:PATH\""),
        ({"images": 3}, TypeError, "not 3"),
        ({"minutes": 0}, ValueError, "above 0"),
        ({"minutes": float("inf")}, ValueError, "above 0"),
        ({"minutes": "five"}, TypeError, "a number, such as"),
        ({"depths": 0}, ValueError, "from 1"),
        ({"depths": [1, "2"]}, ValueError, "from 1"),
        ({"out": "notes.txt"}, ValueError, "notes.txt is a file"),
    ],
)
def test_what_cannot_work_is_a_sentence(folder, arguments, error, words):
    with pytest.raises(error, match=words) as found:
        check_report(**{"classifier": "lite0"} | arguments)
    assert "\n" not in str(found.value)


def test_the_lists_agree_with_the_library():
    assert set(arguments.OWN) == {"lite0", *WHEELS} and arguments.OWN[0] == "lite0"  # the others are of wheels
    assert set(arguments.WITH_SPLITS) == {name for name, (_, splits) in SOURCES.items() if "inverter" in splits}


def test_nothing_heavy_is_imported():
    code = "import sys; from invkit.arguments import check_report as c; c('lite0'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
