"""A cell of Jupyter that is interrupted leaves its session as it was, and the same call works: in a real kernel."""

import pytest
from jupyter_client.manager import start_new_kernel

PATIENCE = 600  # seconds for a kernel on a busy machine
BEGIN = """
import itertools, signal, time
from types import SimpleNamespace
import numpy, torch
from torch import nn
import invkit
from invkit import attacks, fit, minutes, training
from invkit.dci import synthetic

torch.manual_seed(0)
layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU(), nn.Flatten()]
network = nn.Sequential(*layers, nn.Linear(64, 3))
classifier = invkit.Classifier(network, "small", size=16)
network.train()  # as its owner wants it
photos, labels = torch.rand(4, 3, 16, 16), torch.arange(4) % 3

# A clock that each look at it moves, so that no machine's pace is measured.
ticks = itertools.count()
fit.time = minutes.time = training.time = SimpleNamespace(monotonic=lambda: 0.01 * next(ticks))


def facts():
    random = torch.get_rng_state().tolist(), numpy.random.get_state()[1].tolist()
    modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")
    weights = {name: tensor.tolist() for name, tensor in network.state_dict().items()}
    of_network = [module.training for module in network.modules()], [p.requires_grad for p in network.parameters()]
    return random, modes, weights, of_network, signal.getsignal(signal.SIGINT)


def wait_in(owner, name):
    # The first call of a function says so, and waits for the interrupt, which may raise or only be noted.
    function = getattr(owner, name)

    def waits(*arguments, **settings):
        setattr(owner, name, function)
        handler = signal.getsignal(signal.SIGINT)
        print("here", flush=True)
        while signal.getsignal(signal.SIGINT) is handler:
            time.sleep(0.01)
        return function(*arguments, **settings)

    setattr(owner, name, waits)
"""
OF_BLOCKS = "invkit.train_inverter(classifier, depths=1, minutes=0.02, folder='{}', progress=False)"
OF_LOGITS = "invkit.train_inverter(classifier, photos, minutes=0.02, folder='{}', progress=False)"
CELLS = {
    "while images are computed": (OF_BLOCKS, "synthetic, 'draw_pool'"),
    "while steps are timed": (OF_BLOCKS, "training, '_one_step'"),
    "in a step": (OF_BLOCKS, "fit._Enough, 'after_step'"),
    "in a step of an inverter of logits": (OF_LOGITS, "fit._Enough, 'after_step'"),
    "inside the network": ("attacks.pgd(classifier, photos, labels, steps=2)", "network[0], 'forward'"),
}


class Session:
    """A kernel, whose working directory is a folder."""

    def __init__(self, folder):
        self.manager, self.client = start_new_kernel(startup_timeout=PATIENCE, cwd=str(folder))

    def run(self, code):
        """What a cell printed, and (name, sentence) of its error or None; it is interrupted where it says "here"."""
        number, printed, error = self.client.execute(code), "", None
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            kind, content = message["msg_type"], message["content"]
            if message["parent_header"].get("msg_id") != number:
                continue
            if kind == "stream" and content["name"] == "stdout":
                printed += content["text"]
                if "here" in content["text"]:
                    self.manager.interrupt_kernel()
            elif kind == "error":
                error = content["ename"], content["evalue"]
            elif kind == "status" and content["execution_state"] == "idle":
                return printed, error

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    session = Session(tmp_path_factory.mktemp("session"))
    try:
        assert session.run(BEGIN) == ("", None)
        yield session
    finally:
        session.close()


@pytest.mark.parametrize("when", CELLS)
def test_an_interrupted_cell_leaves_the_session_as_it_was_and_can_be_run_again(session, when):
    call, place = CELLS[when]
    cell = call.format(when.replace(" ", "-"))
    session.run("before = facts()")
    printed, error = session.run(f"wait_in({place})\n{cell}")
    assert "here" in printed and error[0] == "KeyboardInterrupt"
    assert "folder" not in cell or error[1].startswith("The training was stopped; the same call goes on from ")
    assert session.run("print(facts() == before)") == ("True\n", None)
    assert session.run(f"made = {cell}\nprint('done', facts() == before)") == ("done True\n", None)
