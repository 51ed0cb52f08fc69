"""Which build of PyTorch is taken: without CUDA where no GPU is seen and the index has it; nobody waits for that."""

import platform
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from study import torch_build

ROOT = Path(__file__).parents[2]
VERSION = re.search(r"^torch==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)[1]
PYTHON = f"cp{sys.version_info[0]}{sys.version_info[1]}"
WHEEL = f'<a href="/whl/cpu/torch-{VERSION}%2Bcpu-{PYTHON}-{PYTHON}-manylinux_2_28_{platform.machine()}.whl">'


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """A machine with Linux, no GPU, and an index that has the wheel."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(torch_build.platform, "system", lambda: "Linux")
    monkeypatch.setattr(torch_build, "gpu_seen", lambda: False)
    monkeypatch.setattr(torch_build, "fetched", lambda address, seconds: WHEEL)
    return monkeypatch


def test_without_a_gpu_the_small_build_is_taken():
    assert torch_build.choice("auto") == (torch_build.INDEX, "without CUDA, because no NVIDIA GPU is seen; "
                                          "TORCH=cuda takes the one with it.")  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("gpu_seen", lambda: True), "with CUDA, because an NVIDIA GPU is seen"),
        (("fetched", lambda *given: None), "did not answer within 3 s"),
        (("fetched", lambda *given: WHEEL.replace(VERSION, "1.0.0")), "has no wheel of it"),
        (("fetched", lambda *given: WHEEL.replace(PYTHON, "cp27")), "has no wheel of it"),
    ],
)
def test_otherwise_it_comes_from_the_registry(machine, change, words):
    machine.setattr(torch_build, *change)
    index, why = torch_build.choice("auto")
    assert index == "" and words in why


def test_on_a_mac_nothing_is_asked(machine):
    machine.setattr(torch_build.platform, "system", lambda: "Darwin")
    machine.setattr(torch_build, "fetched", None)
    assert torch_build.choice("auto")[0] == ""


def test_who_says_it_gets_it(machine, capsys):
    machine.setattr(torch_build, "fetched", None)
    torch_build.main("cpu")
    torch_build.main("cuda")
    printed = capsys.readouterr()
    assert printed.out == f"{torch_build.INDEX}\n\n" and len(printed.err.splitlines()) == 2
    with pytest.raises(SystemExit, match="^TORCH=gpu is none of auto, cpu, cuda"):
        torch_build.main("gpu")


def test_an_index_that_never_answers_is_not_waited_for(monkeypatch):
    monkeypatch.undo()
    never = threading.Event()

    def silent(address, timeout):
        never.wait()
        raise OSError("the test is over")

    monkeypatch.setattr(torch_build.urllib.request, "urlopen", silent)
    assert torch_build.fetched("https://example.org", 0.01) is None
    never.set()


def test_a_refusal_is_no_answer():
    assert _fetched("http://127.0.0.1:9/") is None and _fetched("no address") is None


def _fetched(address):
    code = f"from study import torch_build; print(torch_build.fetched({address!r}, 3))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return None if (found.stdout, found.stderr) == ("None\n", "") else found
