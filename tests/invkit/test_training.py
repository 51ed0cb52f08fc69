"""The loop's promises: the same weights however often it is killed, known answers for the averages and the schedule."""

import json
import math
import os
import random
import resource
import shutil
import signal
import sys
import threading
import time
import warnings

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from helpers import FRESH
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from invkit import checkpoint as checkpoints
from invkit import precision as precisions
from invkit import store, training
from invkit.training import CHECKPOINT, Player, learning_rate, train


def denoiser(width=8):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.1), nn.Conv2d(width, 3, 3)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def denoise(module, images, step):
    output = module(images + 0.1 * torch.randn_like(images))
    return (output - images[..., 2:-2, 2:-2]).square().mean(), {"largest": output.abs().max()}


def noise(step, pause=0.0):
    time.sleep(pause)
    return torch.rand(4, 3, 10, 10, generator=torch.Generator().manual_seed(step))


def train_denoiser(folder=None, *, width=8, lr=1e-3, batches=noise, loss=denoise, steps=40, **settings):
    module = denoiser(width)
    settings = {"steps": steps, "ema": 0.9, "checkpoint_every_steps": 5, "progress": False} | settings
    return module, train(Player("denoiser", module, loss, lr, clip=1.0), batches, folder=folder, **settings)


def rivals():
    """A denoiser and a critic that tells its images from noise: two players, each of whose losses calls the other."""
    maker, critic = denoiser(), nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 1))

    def criticise(module, images, step):
        return (module(maker(images).detach()) - module(images[..., 2:-2, 2:-2])).tanh().mean(), {}

    def please(module, images, step):
        loss, scalars = denoise(module, images, step)
        return loss - 0.1 * critic(module(images)).tanh().mean(), scalars

    return [Player("critic", critic, criticise, 1e-3), Player("maker", maker, please, 1e-3, betas=(0.0, 0.999))]


def slowly(folder, precision, players, batches_made):
    """What the killed process runs, with a checkpoint every third step."""
    torch.set_num_threads(1)

    def counted(step):
        batches_made.value += 1
        return noise(step, 0.01)

    settings = {"batches": counted, "precision": precision, "checkpoint_every_steps": 3}
    if players == 1:
        train_denoiser(folder, **settings)
    else:
        train(rivals(), folder=folder, steps=40, ema=0.9, progress=False, **settings)


def checkpoint(folder):
    with safe_open(folder / CHECKPOINT, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["run"])  # noqa: SIM118


def assert_same_run(folder, other):
    """Weights, moving averages and Adam's moments, bit for bit."""
    (tensors, run), (expected, expected_run) = checkpoint(folder), checkpoint(other)
    assert run["step"] == expected_run["step"] and tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a run of `train_denoiser` as it is, to which a disturbed one comes in the end."""
    train_denoiser(folder := tmp_path_factory.mktemp("undisturbed"))
    return folder


@pytest.mark.parametrize(("precision", "players"), [("bf16", 1), ("no", 2)])
def test_killed_at_random_moments_ends_with_the_weights_of_an_undisturbed_run(tmp_path, precision, players):
    def start(name):
        made = FRESH.Value("i", 0)
        process = FRESH.Process(target=slowly, args=(tmp_path / name, precision, players, made))
        process.start()
        return process, made

    draw, stops = random.Random(0), []
    for _ in range(4):
        process, made = start("killed")
        enough = draw.randint(2, 14)
        while made.value < enough and process.is_alive():
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        stops.append(checkpoint(tmp_path / "killed")[1]["step"])
    assert stops == sorted(stops) and 0 < stops[-1] < 40
    for name in ("killed", "undisturbed"):
        process, _ = start(name)
        process.join()
        assert process.exitcode == 0
    assert_same_run(tmp_path / "killed", tmp_path / "undisturbed")


@pytest.mark.parametrize("number, error", [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_checkpoints_and_leaves_and_the_same_call_goes_on(tmp_path, number, error, undisturbed):
    def interrupted(step):
        if step == 12:
            os.kill(os.getpid(), number)
        return noise(step)

    before = signal.getsignal(number)
    with pytest.raises(error, match=r"stopped after step \d+ of 40; the same call goes on") as stopped:
        train_denoiser(tmp_path / "stopped", batches=interrupted, checkpoint_every_steps=None)
    assert signal.getsignal(number) == before
    assert number == signal.SIGINT or stopped.value.code == 143
    assert 10 <= checkpoint(tmp_path / "stopped")[1]["step"] <= 13  # batches are made two steps ahead
    train_denoiser(tmp_path / "stopped", checkpoint_every_steps=None)
    assert_same_run(tmp_path / "stopped", undisturbed)


def test_a_signal_while_a_step_ends_waits_for_the_next_and_loses_nothing(tmp_path, monkeypatch, undisturbed):
    """It comes when whether a checkpoint is due has just been asked, and no thread is at work."""

    def due(self, done):
        if done == 12:
            signal.raise_signal(signal.SIGINT)
        return False

    with monkeypatch.context() as patch:
        patch.setattr(training._CheckpointClock, "due", due)
        with pytest.raises(KeyboardInterrupt, match="after step 13 of 40"):
            train_denoiser(tmp_path / "stopped")
    assert checkpoint(tmp_path / "stopped")[1]["step"] == 13
    train_denoiser(tmp_path / "stopped")
    assert_same_run(tmp_path / "stopped", undisturbed)


def test_a_signal_behind_the_last_step_is_not_lost(tmp_path, monkeypatch):
    close = training._Log.close

    def interrupted(self):
        close(self)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(training._Log, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_denoiser(tmp_path)
    assert checkpoint(tmp_path)[1]["step"] == 40


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch, undisturbed):
    def disk_full(tensors, path, metadata):
        path.write_bytes(b"half a file")
        raise OSError("No space left on device")

    def fills_the_disk(step):
        if step == 8:
            monkeypatch.setattr(store, "_save_file", disk_full)
        return noise(step)

    with pytest.raises(OSError, match="No space left"):
        train_denoiser(tmp_path / "full", batches=fills_the_disk)
    assert checkpoint(tmp_path / "full")[1]["step"] == 5
    monkeypatch.undo()
    train_denoiser(tmp_path / "full")
    assert_same_run(tmp_path / "full", undisturbed)


def test_a_finished_folder_returns_at_once_with_its_averaged_weights(tmp_path):
    module, trained = train_denoiser(tmp_path)

    def never(*_):
        raise AssertionError("a finished run trained again")

    again, same = train_denoiser(tmp_path, batches=never, loss=never)
    assert same.history == trained.history and same.steps == 40 and same.seconds == trained.seconds
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, module.state_dict()[name]) and torch.equal(tensor, same.ema["denoiser"][name])
    assert not torch.equal(again[0].weight, checkpoint(tmp_path)[0]["denoiser/weights/0.weight"])  # the raw ones
    assert again[0].weight.is_contiguous(memory_format=torch.channels_last) and not again.training


@pytest.mark.parametrize("change", [{"lr": 2e-3}, {"seed": 1}, {"steps": 50}, {"ema": None}, {"width": 4}])
def test_a_folder_of_another_configuration_is_refused(tmp_path, change):
    train_denoiser(tmp_path, steps=5)
    with pytest.raises(ValueError, match="was made .*use another folder"):
        train_denoiser(tmp_path, **{"steps": 5} | change)


def test_going_on_with_batches_of_other_shapes_is_refused(tmp_path):
    def of(count):
        return lambda step: (noise(step)[:count], {"labels": torch.zeros(count)})

    def loss(module, batch, step):
        return denoise(module, batch[0], step)

    def stops(step):
        if step == 12:
            raise RuntimeError("stop")
        return of(4)(step)

    with pytest.raises(RuntimeError, match="stop"):
        train_denoiser(tmp_path, batches=stops, loss=loss)
    sentence = r"with batches of \[\[4, 3, 10, 10\], \[\[4\]\]\], this call has \[\[2, 3, .*: use another folder"
    with pytest.raises(ValueError, match=sentence):
        train_denoiser(tmp_path, batches=of(2), loss=loss)
    train_denoiser(tmp_path, batches=of(4), loss=loss)
    assert checkpoint(tmp_path)[1]["step"] == 40


def test_going_on_where_batches_have_other_shapes_in_other_steps_is_no_other_call(tmp_path):
    def shrinking(step):
        return noise(step)[: 4 if step < 8 else 3]

    def stops(step):
        if step == 12:
            raise RuntimeError("stop")
        return shrinking(step)

    with pytest.raises(RuntimeError, match="stop"):
        train_denoiser(tmp_path / "stopped", batches=stops)
    train_denoiser(tmp_path / "stopped", batches=shrinking)
    train_denoiser(tmp_path / "undisturbed", batches=shrinking)
    assert_same_run(tmp_path / "stopped", tmp_path / "undisturbed")


def half_way(folder, steps=40):
    """A run that stops at step 12; its checkpoints are of the steps 5 and 10."""

    def stops(step):
        if step == 12:
            raise RuntimeError("stop")
        return noise(step)

    with pytest.raises(RuntimeError, match="stop"):
        train_denoiser(folder, batches=stops, steps=steps)


def flip(path, place):
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [0.0, 0.02, 0.1, 0.3, 0.6, 0.99, "truncated", "empty", "text"])
def test_a_damaged_checkpoint_is_told_of_and_the_one_before_goes_on_to_the_same_weights(tmp_path, damage, undisturbed):
    half_way(tmp_path / "damaged")
    file = tmp_path / "damaged" / CHECKPOINT
    if isinstance(damage, float):
        flip(file, damage)
    else:
        file.write_bytes({"truncated": file.read_bytes()[:-100], "empty": b"", "text": b"no weights " * 99}[damage])
    with pytest.warns(UserWarning, match="is damaged .*: the one before, of step 5, is used"):
        train_denoiser(tmp_path / "damaged")
    assert_same_run(tmp_path / "damaged", undisturbed)


def test_two_damaged_checkpoints_are_refused(tmp_path):
    half_way(tmp_path)
    flip(tmp_path / CHECKPOINT, 0.5)
    flip(tmp_path / checkpoints.BEFORE, 0.5)
    with pytest.raises(ValueError, match="is damaged .* and there is none before: delete .* to train from the start"):
        train_denoiser(tmp_path)


def test_killed_between_the_two_renames_the_one_before_is_found(tmp_path):
    half_way(tmp_path)
    (tmp_path / CHECKPOINT).unlink()
    assert checkpoints.newest(tmp_path)[1]["step"] == 5 and checkpoints.seconds(tmp_path) > 0


@pytest.mark.parametrize("change", [{"step": 41}, {"step": -1}, {"steps": None}, {"seconds": "long"}, {"settings": {}}])
def test_a_step_that_is_not_of_the_run_is_damage_and_a_checkpoint_without_a_hash_is_taken(tmp_path, change):
    half_way(tmp_path)
    (tmp_path / checkpoints.BEFORE).unlink()
    tensors, run = checkpoint(tmp_path)
    save_file(tensors, tmp_path / CHECKPOINT, {"run": json.dumps(run | change)})
    with pytest.raises(ValueError, match="is damaged .its step is not one of its run"):
        train_denoiser(tmp_path)
    save_file(tensors, tmp_path / CHECKPOINT, {"run": json.dumps(run)})
    train_denoiser(tmp_path)
    assert checkpoint(tmp_path)[1]["step"] == 40


def test_on_a_disk_without_links_the_one_before_is_kept_too(tmp_path, monkeypatch):
    def refuses(*_):
        raise OSError("Operation not permitted")

    monkeypatch.setattr(checkpoints.os, "link", refuses)
    half_way(tmp_path)
    flip(tmp_path / CHECKPOINT, 0.5)
    with pytest.warns(UserWarning, match="the one before, of step 5, is used"):
        train_denoiser(tmp_path)


def test_what_killed_processes_left_is_removed(tmp_path):
    left = tmp_path / f".{CHECKPOINT}.123.partial"
    left.write_bytes(b"half a checkpoint")
    train_denoiser(tmp_path, steps=5)
    assert not left.exists()


def test_two_trainings_never_write_to_one_folder(tmp_path, undisturbed):
    other = Player("denoiser", denoiser(), denoise, 1e-3)  # made here: it seeds the random numbers of all threads

    def second(step):
        if step == 3:
            with pytest.raises(ValueError, match="Another process trains in .*: wait for it to end, or use another"):
                train(other, noise, steps=40, folder=tmp_path, progress=False)
        return noise(step)

    train_denoiser(tmp_path, batches=second)
    train_denoiser(tmp_path)  # the lock ends with the run
    assert_same_run(tmp_path, undisturbed)


def on_a_full_disk(folder, said):
    """Train where no file may have more than 10 kB, as on a disk that is full; send what was said."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        train_denoiser(folder)
    except Exception as error:
        said.send((type(error), str(error)))


def test_a_full_disk_is_one_sentence_and_keeps_the_checkpoint(tmp_path):
    half_way(tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    receiver, sender = FRESH.Pipe(duplex=False)
    process = FRESH.Process(target=on_a_full_disk, args=(tmp_path, sender))
    process.start()
    process.join()
    assert receiver.poll(), "nothing was said"
    kind, sentence = receiver.recv()
    assert issubclass(kind, OSError) and "make room, or name another" in sentence and "\n" not in sentence
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's thread
def test_a_folder_that_disappears_is_made_again_and_only_tensorboard_is_lost(tmp_path, undisturbed):
    def vanishes(step):
        if step == 12:  # moved first, since TensorBoard's thread may write a file into a folder that is being emptied
            shutil.rmtree((tmp_path / "gone").rename(tmp_path / "moved"), ignore_errors=True)
        return noise(step)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TensorBoard's log ends")  # where its thread is quick enough to notice
        train_denoiser(tmp_path / "gone", batches=vanishes)
    assert_same_run(tmp_path / "gone", undisturbed)


def test_moving_average_known_answer():
    weights = []

    def downhill(module, batch, step):
        weights.append(module.weight.detach().clone())
        return (module.weight - batch).square().sum(), {}

    module = nn.Linear(3, 2, bias=False)
    train(
        Player("line", module, downhill, 0.1), lambda step: torch.tensor(float(step)), steps=30, ema=0.9, progress=False
    )
    raw = nn.Linear(3, 2, bias=False)
    raw.weight.data.copy_(weights[0])
    train(
        Player("line", raw, downhill, 0.1), lambda step: torch.tensor(float(step)), steps=30, ema=None, progress=False
    )

    average = weights[1].clone()
    for step, weight in enumerate([*weights[2:30], raw.weight.detach()], start=1):
        decay = min(0.9, 1 - (1 + step) ** -0.75)
        average = decay * average + (1 - decay) * weight
    assert torch.allclose(module.weight, average, atol=1e-6)
    assert not torch.allclose(module.weight, raw.weight, atol=1e-3)


def test_learning_rate_rises_linearly_then_falls_along_a_cosine():
    assert [learning_rate(step, 100, warmup=0.1) for step in (0, 4, 10, 55)] == pytest.approx([1 / 11, 5 / 11, 1, 0.5])
    assert learning_rate(99, 100, warmup=0.1) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert learning_rate(99, 100, warmup=0.1, schedule="constant") == 1
    assert learning_rate(0, 1) == 1


def test_adam_follows_the_schedule():
    """A constant gradient moves Adam by exactly the learning rate."""
    module = nn.Linear(1, 1, bias=False)
    start = module.weight.item()
    settings = {"steps": 20, "warmup": 0.25, "ema": None, "progress": False}
    train(Player("line", module, lambda line, batch, step: (line.weight.sum(), {}), 0.01), lambda step: 0, **settings)
    expected = start - 0.01 * sum(learning_rate(step, 20, 0.25) for step in range(20))
    assert module.weight.item() == pytest.approx(expected, abs=1e-6)


def test_minutes_fix_the_number_of_steps_once(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def timed_loss(module, images, step):
        now[0] += 0.008  # each step takes 8 ms, whatever the machine
        return denoise(module, images, step)

    def stopped(step):
        if step == 30 and (tmp_path / "timed" / CHECKPOINT).exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return noise(step)

    with pytest.raises(SystemExit):
        train_denoiser(tmp_path / "timed", batches=stopped, loss=timed_loss, steps=None, minutes=1 / 60)
    steps = checkpoint(tmp_path / "timed")[1]["steps"]
    assert 100 < steps < 125  # of 8 ms each, less the steps that were timed
    _, timed = train_denoiser(tmp_path / "timed", steps=None, minutes=1 / 60)
    assert timed.steps == steps
    train_denoiser(tmp_path / "counted", steps=steps)
    assert_same_run(tmp_path / "timed", tmp_path / "counted")  # the timing left no trace


def test_a_loss_that_is_not_finite_keeps_the_last_good_weights(tmp_path):
    def breaks(module, images, step):
        loss, scalars = denoise(module, images, step)
        return loss * (math.nan if step >= 7 else 1), scalars

    for _ in range(2):  # the second time from the checkpoint
        with pytest.raises(FloatingPointError, match="loss is not finite by step 8; the checkpoint before is kept"):
            train_denoiser(tmp_path, loss=breaks)
        tensors, run = checkpoint(tmp_path)
        assert run["step"] == 5 and all(tensor.isfinite().all() for tensor in tensors.values())


def test_a_gradient_that_is_not_finite_is_never_saved(tmp_path):
    def breaks(module, images, step):
        loss, scalars = denoise(module, images, step)
        return loss + (module[0].weight[0] * 0).square().sum().sqrt(), scalars  # the root's slope at 0

    with pytest.raises(FloatingPointError, match="exp_avg is not finite"):
        train_denoiser(tmp_path, loss=breaks, steps=1)
    assert checkpoint(tmp_path)[1]["step"] == 0


def test_batches_come_from_a_background_thread_and_its_errors_surface():
    threads = set()

    def runs_out(step):
        threads.add(threading.current_thread())
        if step == 20:
            raise RuntimeError("no photo left")
        return noise(step)

    with pytest.raises(RuntimeError, match="no photo left"):
        train_denoiser(batches=runs_out)
    assert len(threads) == 1 and threading.main_thread() not in threads
    assert not threads.pop().is_alive()


def test_random_numbers_of_the_caller_are_left_alone():
    module, state = denoiser(), torch.random.get_rng_state()
    train(Player("denoiser", module, denoise, 1e-3), noise, steps=3, progress=False)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_seed_changes_the_draws_and_nothing_else_does():
    (one, _), (same, _), (other, _) = (train_denoiser(seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one[0].weight, same[0].weight) and not torch.equal(one[0].weight, other[0].weight)


def test_bf16_covers_the_loss_and_leaves_float32_weights_and_the_next_run_alone():
    kinds = []

    def noted(module, images, step):
        kinds.append((torch.is_autocast_enabled("cpu"), module(images).dtype))
        return denoise(module, images, step)

    for precision, expected in [("bf16", (True, torch.bfloat16)), ("no", (False, torch.float32))]:
        module, _ = train_denoiser(loss=noted, steps=2, precision=precision)
        assert kinds[-1] == expected
        assert module[0].weight.dtype == module(noise(0)).dtype == torch.float32


@pytest.mark.parametrize(("began", "goes_on"), [("bf16", False), ("no", True)])
def test_a_resumed_run_keeps_the_precision_that_it_began_with(tmp_path, monkeypatch, began, goes_on):
    """Precision "auto" follows the machine once, at the start: half a run in each would be neither of the two."""
    kinds = set()

    def noted(module, images, step):
        kinds.add(torch.is_autocast_enabled("cpu"))
        return denoise(module, images, step)

    def stops(step):
        if step == 12:
            raise RuntimeError("stop")
        return noise(step)

    def fast(answer):
        monkeypatch.setattr(precisions, "fast_bfloat16", lambda kind: answer)
        monkeypatch.setattr(training, "fast_bfloat16", lambda kind: answer)

    fast(began == "bf16")
    with pytest.raises(RuntimeError, match="stop"):
        train_denoiser(tmp_path, batches=stops, loss=noted)
    assert checkpoint(tmp_path)[1]["precision"] == began
    fast(goes_on)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train_denoiser(tmp_path, loss=noted)
    assert kinds == {began == "bf16"}
    assert any("begun in bfloat16" in str(warning.message) for warning in caught) == (began == "bf16")


class Timekeeper:
    """A supervisor that gives every run so many minutes, and counts the steps it is told of."""

    def __init__(self, minutes):
        self.asked, self.seen = minutes, []

    def minutes(self, folder):
        return self.asked

    def after_step(self, progress):
        self.seen.append((progress.step, progress.steps))
        assert progress.averages["denoiser"].training is False and len(progress.batch) == 4


def test_a_supervisor_fixes_the_steps_by_the_clock_and_sees_each(tmp_path):
    def stops(step):
        if step == 5 and (tmp_path / CHECKPOINT).exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return noise(step, 0.002)

    with training.supervised(Timekeeper(1 / 30)), pytest.raises(SystemExit):
        train_denoiser(tmp_path, batches=stops, steps=3)
    steps = checkpoint(tmp_path)[1]["steps"]
    assert 5 < steps < 1000  # each takes at least 2 ms
    supervisor = Timekeeper(1)  # too late: the number of steps is fixed
    with training.supervised(supervisor):
        _, trained = train_denoiser(tmp_path, steps=3)
    assert trained.steps == steps and supervisor.seen[-1] == (steps, steps)
    _, alone = train_denoiser(steps=3)
    assert alone.steps == 3


def test_without_tensorboard_there_is_no_such_log_and_no_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # importing it now raises ImportError
    train_denoiser(tmp_path, steps=5)
    assert not (tmp_path / "tensorboard").exists() and checkpoint(tmp_path)[1]["step"] == 5


def test_another_accelerator_in_the_process_does_not_disturb():
    AcceleratorState._reset_state()
    Accelerator(mixed_precision="bf16")
    train_denoiser(steps=2)


def test_players_take_turns_and_gather_only_their_own_gradients():
    """The actor's loss goes through the critic, whose own loss is flat: the critic must not move."""
    actor, critic = nn.Linear(2, 2), nn.Linear(2, 1)
    before = [p.detach().clone() for p in (*actor.parameters(), *critic.parameters())]
    turns = []

    def act(module, batch, step):
        turns.append("actor")
        return critic(module(batch)).mean(), {}

    def judge(module, batch, step):
        turns.append("critic")
        assert step or critic.weight.grad is None  # nothing gathered in the actor's turn
        return 0 * module(batch).mean(), {"step": step}

    players = [Player("actor", actor, act, 0.1), Player("critic", critic, judge, 0.1)]
    trained = train(players, lambda step: torch.ones(4, 2), steps=3, ema=None, progress=False)
    moved = [
        not torch.equal(p, old) for p, old in zip((*actor.parameters(), *critic.parameters()), before, strict=True)
    ]
    assert moved == [True, True, False, False] and turns == ["actor", "critic"] * 3
    assert all(p.requires_grad for p in (*actor.parameters(), *critic.parameters()))
    assert trained.history[-1][1].keys() == {"actor/loss", "critic/loss", "critic/step"}


def test_parts_that_a_step_leaves_out_are_restored_too(tmp_path):
    """As when a random depth of a chain is trained: Adam counts each parameter's own steps."""

    def sometimes(module, batch, step):
        return module[step % 3 == 0].weight.square().sum(), {f"part {step % 2}": step}

    def run(folder, batches):
        torch.manual_seed(0)
        module = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)])
        train(Player("parts", module, sometimes, 0.1), batches, steps=20, folder=folder, progress=False)

    def interrupted(step):
        if step == 9:
            raise RuntimeError("stop")
        return step

    with pytest.raises(RuntimeError, match="stop"):
        run(tmp_path / "stopped", interrupted)
    run(tmp_path / "stopped", lambda step: step)
    run(tmp_path / "undisturbed", lambda step: step)
    assert_same_run(tmp_path / "stopped", tmp_path / "undisturbed")
    counts = {
        name: int(tensor) for name, tensor in checkpoint(tmp_path / "stopped")[0].items() if name.endswith("step")
    }
    assert sorted(counts.values()) == [7, 13]


def test_history_and_tensorboard_hold_the_means_of_each_interval(tmp_path):
    def logged(module, batch, step):
        return module.weight.sum(), {"step": step} | ({"odd": step} if step % 2 else {})

    settings = {"steps": 1000, "folder": tmp_path, "ema": None, "progress": False}
    trained = train(Player("line", nn.Linear(1, 1), logged, 1e-3), lambda step: 0, **settings)
    assert [step for step, _ in trained.history] == list(range(2, 1001, 2))
    assert trained.history[10][1]["step"] == 20.5 and trained.history[10][1]["odd"] == 21

    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"loss", "step", "odd", "learning_rate"} <= set(events.Tags()["scalars"])
    assert events.Scalars("step")[10].value == 20.5 and events.Scalars("step")[10].step == 22


@pytest.mark.parametrize(
    "wrong",
    [{"steps": None}, {"minutes": 1.0}, {"steps": 0}, {"steps": 2.5}, {"ema": 1.0}, {"warmup": 1.0}, {"seed": -1},
     {"schedule": "linear"}, {"precision": "fp8"}],
)  # fmt: skip
def test_settings_that_make_no_sense_get_one_sentence(wrong):
    with pytest.raises((TypeError, ValueError), match="must|Give|share|takes steps as"):
        train_denoiser(**wrong)


def test_a_frozen_player_is_refused():
    with pytest.raises(ValueError, match="no parameter to train"):
        train(Player("frozen", nn.Linear(1, 1).requires_grad_(False), denoise, 1e-3), noise, steps=1)
