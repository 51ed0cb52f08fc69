"""Two processes with half a batch each train as one process with the whole batch does: gradients, batch norms, EMA."""

import os
import socket
import subprocess
import sys

import torch

from tests.invkit import two_processes


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_two_processes_train_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(two_processes.training, "random_noise", two_processes.noise)
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    together |= {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}  # as `accelerate launch --cpu` sets them
    command = [sys.executable, "-m", "tests.invkit.two_processes", str(tmp_path / "two.pt")]
    processes = [
        subprocess.Popen(command, env=os.environ | together | {"RANK": rank, "LOCAL_RANK": rank}) for rank in ("0", "1")
    ]
    one = two_processes.train_all(world=1)
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    assert one.keys() == two.keys()
    apart = {name: (one[name] - two[name]).abs().max().item() for name in one}
    assert max(apart.values()) < 1e-5, apart
