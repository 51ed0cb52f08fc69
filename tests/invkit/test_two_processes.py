"""Two processes with half a batch each train as one process with the whole batch does: gradients, batch norms, EMA."""

import signal
import socket

import torch
from helpers import FRESH

from tests.invkit import two_processes


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def start(*arguments):
    """Both processes, with the environment in which `accelerate launch` starts them."""
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    together |= {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}  # as `accelerate launch --cpu` sets them
    environments = [together | {"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    processes = [FRESH.Process(target=two_processes.main, args=(one, *arguments)) for one in environments]
    for process in processes:
        process.start()
    return processes


def ended(processes):
    """Their exit codes."""
    for process in processes:
        process.join(timeout=300)
    return [process.exitcode for process in processes]


def test_two_processes_train_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(two_processes.training, "random_noise", two_processes.noise)
    processes = start(tmp_path / "two.pt")
    one = two_processes.train_all(world=1)
    assert ended(processes) == [0, 0]
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    assert one.keys() == two.keys()
    apart = {name: (one[name] - two[name]).abs().max().item() for name in one}
    assert max(apart.values()) < 1e-5, apart


def test_two_processes_go_on_after_one_of_them_was_killed(tmp_path):
    out, folder = tmp_path / "two.pt", tmp_path / "run"
    first, second = ended(start(out, folder, 25))  # the second one's batch of step 12
    assert second == -signal.SIGKILL and first != 0 and not out.exists()
    assert ended(start(out, folder, -1)) == [0, 0]
    two, one = torch.load(out, weights_only=True), two_processes.train_with_checkpoints(None, world=1)
    assert two.pop("asked") <= two_processes.STEPS - 4 < one.pop("asked")  # from a checkpoint, not from the beginning
    assert all(torch.allclose(one[name], two[name], rtol=0, atol=1e-9) for name in one)
