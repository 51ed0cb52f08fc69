"""All shipped inverters load and give the numbers that they gave before: reconstructions of ten photos, on one thread.

Everywhere, means over quarters of every image agree with `shipped.json` to a thousandth; on a processor of the kind
that made the file, with the same PyTorch, all bits do. After new weights:
INVKIT_RENEW=1 pytest tests/repository/test_shipped.py
"""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch

import invkit
from invkit import store

FILE = Path(__file__).with_name("shipped.json")
RECORDED = json.loads(FILE.read_text()) if FILE.exists() else {}
INVERTERS = [name for name in store.shipped() if name.startswith(("dci-", "ffi-"))]


def machine() -> str:
    """What decides how sums round: the processor's instructions and the version of PyTorch."""
    flags = sorted(flag for flag, there in torch.cpu.get_capabilities().items() if there is True)
    digest = hashlib.sha256(" ".join(flags).encode()).hexdigest()[:12]
    return f"{torch.__version__.split('+')[0]} {torch.backends.cpu.get_cpu_capability()} {digest}"


@pytest.fixture(scope="module")
def photos():
    return invkit.data.load("samples", n=10, seed=0).images


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.inference_mode()
def reconstructions(name: str, photos: torch.Tensor) -> torch.Tensor:
    """Ten photos through an inverter, at three depths where there are several: (10 or 30, 3, S, S)."""
    inverter = invkit.load_inverter(name)
    if not name.startswith("dci-") or name == "dci-facegan":
        images = torch.nn.functional.interpolate(photos, (inverter.size, inverter.size), mode="area")
        return inverter.reconstruct(images)
    depths = [inverter.depths[0], inverter.depths[len(inverter.depths) // 2], inverter.depths[-1]]
    return torch.cat([inverter.reconstruct(photos, depth=depth) for depth in depths])


@pytest.mark.parametrize("name", INVERTERS)
def test_reconstructions_are_those_recorded(name, photos, one_thread):
    made = reconstructions(name, photos).float().contiguous()
    summary = torch.nn.functional.adaptive_avg_pool2d(made, 2).flatten()
    found = {
        "sha256": hashlib.sha256(made.numpy().tobytes()).hexdigest(),
        "weights": json.loads((store.weights_folder() / name / "card.json").read_text())["sha256"],
        "quarters": [round(value, 4) for value in summary.tolist()],
    }
    if os.environ.get("INVKIT_RENEW"):
        RECORDED[name], RECORDED["machine"] = found, machine()
        there = {key: RECORDED[key] for key in ("machine", *INVERTERS) if key in RECORDED}
        FILE.write_text(json.dumps(there, sort_keys=True) + "\n")
        return
    known = RECORDED[name]
    assert found["weights"] == known["weights"], "new weights: renew shipped.json, as the top of this file says"
    torch.testing.assert_close(summary, torch.tensor(known["quarters"]), rtol=0, atol=1e-3)
    if RECORDED["machine"] == machine():
        assert found["sha256"] == known["sha256"]
