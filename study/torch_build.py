"""Which build of PyTorch the Makefile installs; runs before anything is installed, with the standard library alone.

    python3 -m study.torch_build auto

prints the address of the index from which PyTorch is to come, or nothing where it is to come from the registry as all
else does. One line on standard error says which and why. The build without CUDA is far smaller than the one with it, so
it is taken wherever no NVIDIA GPU is seen and its index has this version and answers soon.
"""

import platform
import re
import subprocess
import sys
import threading
import urllib.request
from http.client import HTTPException
from pathlib import Path

INDEX = "https://download.pytorch.org/whl/cpu"
SECONDS = 3  # in which the index has to answer, so that nobody waits for one that is out of reach
CHOICES = ("auto", "cpu", "cuda")


def main(wanted="auto"):
    if wanted not in CHOICES:
        sys.exit(f"TORCH={wanted} is none of {', '.join(CHOICES)}: leave it out, or say make TORCH=cpu.")
    index, words = choice(wanted)
    print(f"PyTorch {words}", file=sys.stderr)
    print(index)


def choice(wanted):
    """(address of an index, or "" for the registry; which build and why)."""
    if wanted == "cpu":
        return INDEX, "without CUDA, as TORCH=cpu asks."
    if wanted == "cuda":
        return "", "as the registry has it, as TORCH=cuda asks."
    if platform.system() != "Linux":
        return "", f"as the registry has it: for {platform.system()} that is the build without CUDA."
    if gpu_seen():
        return "", "as the registry has it, with CUDA, because an NVIDIA GPU is seen."
    page = fetched(f"{INDEX}/torch/", SECONDS)
    if page is None:
        return "", f"as the registry has it, because {INDEX} did not answer within {SECONDS} s; TORCH=cpu waits for it."
    if not has_wheel(page):
        return "", f"as the registry has it, because {INDEX} has no wheel of it for this Python and processor."
    return INDEX, "without CUDA, because no NVIDIA GPU is seen; TORCH=cuda takes the one with it."


def gpu_seen():
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return True
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0 and b"GPU" in found.stdout


def fetched(address, seconds):
    """The text of a page, or None where it is not here in time.

    The thread that waits for it ends with the program: a name that cannot be resolved knows no timeout.
    """
    pages = []

    def fetch():
        try:
            with urllib.request.urlopen(address, timeout=seconds) as answer:
                pages.append(answer.read().decode("utf-8", "replace"))
        except (
            OSError,
            ValueError,
            HTTPException,
        ):  # no network, a proxy that refuses, a certificate that is not known
            pass

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    thread.join(seconds)
    return pages[0] if pages else None


def has_wheel(page):
    """Whether the index lists the pinned version for this Python and processor."""
    pinned = re.search(r"^torch==(\S+)", Path("requirements.txt").read_text(encoding="utf-8"), re.MULTILINE)
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    wheel = rf"torch-{re.escape(pinned[1])}(%2B|\+)cpu-{python}-{python}-\w*linux\w*_{platform.machine()}\.whl"
    return re.search(wheel, page) is not None


if __name__ == "__main__":
    main(*sys.argv[1:])
