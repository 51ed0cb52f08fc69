"""The one training loop, used by everything that is trained here; it reads from top to bottom.

A *player* is a module with a loss and an Adam optimiser (Kingma & Ba 2015, arXiv 1412.6980). A regression has one
player; a generator and its discriminator are two, which take turns inside every step. Each player keeps an exponential
moving average (EMA) of its weights, and those are the weights it ends with.

Everything that happens in step s depends on the weights before it, the seed and s alone: the batch is `batches(s)`,
PyTorch's random numbers are reseeded from (seed, s), the learning rate is a formula of s. So weights, moving averages,
Adam's moments and the step number are the whole state: a run killed at any moment and started again with the same call
ends, on a CPU with the same number of threads, with bit for bit the weights of an undisturbed one.

A run's folder holds checkpoints (`invkit.checkpoint`) and `tensorboard/`. Accelerate supplies the device,
the gradients' all-reduce and clipping, so that the same call runs under `accelerate launch` on many devices.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from invkit import checkpoint
from invkit.arguments import check_minutes
from invkit.checkpoint import CHECKPOINT
from invkit.checks import check_seed, check_whole_number, checked
from invkit.precision import autocast, fast_bfloat16, resolve
from invkit.store import as_path, plain

if TYPE_CHECKING:  # Accelerate and timm take seconds to import, and only a training needs them
    from accelerate import Accelerator

__all__ = ["CHECKPOINT", "Player", "Progress", "Supervisor", "Trained", "learning_rate", "supervised", "train"]

READ_AHEAD = 2  # batches prepared while a step runs
LOG_ENTRIES = 500  # in the history of a run
GPU_LOG_STEPS = 50  # steps between two entries on a GPU, at least: reading a scalar makes the CPU wait for the device


@checked
@dataclass
class Player:
    """One module in training, with what it minimises.

    Attributes:
        name: without "/", different from those of other players.
        module: what is trained: all its parameters with requires_grad.
        loss: loss(module, batch, step) returns a scalar tensor to minimise and a dict of scalars to log (floats or
            tensors). It must call the `module` it is given (on many devices that is the distributed wrapper); other
            players' modules and frozen networks may be captured. It may take PyTorch's global random numbers.
        lr: largest learning rate.
        betas, weight_decay: of AdamW.
        clip: the largest norm that the gradient may have; None for any.
    """

    name: str
    module: nn.Module
    loss: Callable[[nn.Module, Any, int], tuple[Tensor, dict[str, float | Tensor]]]
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float | None = None


@dataclass
class Trained:
    """What `train` leaves.

    Attributes:
        folder: None for a run that kept nothing on disk.
        steps: of the whole run.
        seconds: spent, over all restarts.
        history: [(step, {scalar: mean since the entry before})].
        ema: {player: state dict on the CPU}; empty when no moving average was asked for.
    """

    folder: Path | None
    steps: int
    seconds: float
    history: list[tuple[int, dict[str, float]]]
    ema: dict[str, dict[str, Tensor]] = field(default_factory=dict)


@checked
def train(
    players: Player | list[Player],
    batches: Callable[[int], Any],
    *,
    steps: int | None = None,
    minutes: float | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
    ema: float | None = 0.999,
    warmup: float = 0.02,
    schedule: str = "cosine",
    precision: str = "auto",
    checkpoint_every_minutes: float = 2.0,
    checkpoint_every_steps: int | None = None,
    progress: bool = True,
    description: str = "training",
) -> Trained:
    """Train the players for `steps` steps, or for as many as fit into `minutes`; go on where a stopped run left off.

    Args:
        players: one, or several that take turns in every step, in this order.
        batches: batches(step) returns one batch: tensors, or tuples, lists and dicts of them, which the loop moves to
            the device. It must depend on step alone and must not take PyTorch's *global* random numbers (use
            `invkit.seeds.generator_for`), because it runs ahead in a background thread. Process p of P is given
            batches(step * P + p).
        steps: how many.
        minutes: instead of steps. A few steps are timed and undone; their pace fixes the number of steps once, and the
            checkpoint keeps it.
        folder: where the checkpoint goes; None keeps nothing. A finished folder returns at once, with its weights in
            the modules.
        seed: of everything random, 0 or more.
        ema: decay of the moving average, reached by way of 1 - (1 + step)^-0.75, so that short runs forget their start;
            None for no moving average.
        warmup: share of the steps over which the learning rate rises linearly.
        schedule: "cosine" (to 0) or "constant".
        precision: "bf16" evaluates the losses under bfloat16 autocast, while the weights stay float32; "no" is float32
            throughout; "auto" is "bf16" where the device is fast at it (`invkit.precision`). It is resolved once: a
            resumed run keeps the precision that it began with.
        checkpoint_every_minutes, checkpoint_every_steps: whichever comes first; also at the end, and at Ctrl-C or
            SIGTERM.
        progress: show a progress bar, named `description`.

    Returns:
        What the run leaves. The modules are in eval mode, on the device, and hold the moving average when there is one
        (the raw weights stay in the checkpoint). The caller's global random numbers are left as they were.

    Raises:
        ValueError: settings that make no sense, or a folder made with others, with batches of other shapes, or in use
            by another process.
        FloatingPointError: a loss or a gradient that is not finite; the checkpoint before stays.
        KeyboardInterrupt, SystemExit (code 143): Ctrl-C and SIGTERM, once the checkpoint is written.
    """
    players = [players] if isinstance(players, Player) else list(players)
    _check_settings(players, steps, minutes, seed, ema, warmup, schedule, precision)
    folder = as_path(folder) if folder is not None else None
    accelerator = _accelerator()
    learners = [_Learner(player, accelerator, ema) for player in players]
    settings = {"steps": steps, "minutes": minutes, "seed": seed, "ema": ema, "warmup": warmup, "schedule": schedule}
    settings |= {"precision": precision, "processes": accelerator.num_processes}
    for p in players:
        settings[p.name] = {"lr": p.lr, "betas": list(p.betas), "weight_decay": p.weight_decay, "clip": p.clip}
    supervisor = _SUPERVISOR.get()
    if supervisor is not None:
        settings["supervised"], minutes = True, supervisor.minutes(folder)

    generators = [accelerator.device] if accelerator.device.type == "cuda" else []
    alone = checkpoint.alone(folder if accelerator.is_main_process else None)
    with alone, torch.random.fork_rng(generators), _Signals() as signals:
        run = _resume(folder, learners, settings)
        if run is None:
            run = {"settings": settings, "step": 0, "seconds": 0.0, "history": []}
            run |= {"precision": resolve(precision, accelerator.device), "threads": torch.get_num_threads()}
            for learner in learners:
                learner.precision = run["precision"]
            run["steps"] = steps if minutes is None else _steps_in(minutes, batches, learners, seed, signals)
            _write_checkpoint(folder, learners, run)
        every = checkpoint_every_steps
        if every and steps and run["steps"] != steps:  # as often in the whole as was asked for
            every = max(1, round(every * run["steps"] / steps))
        clock = _CheckpointClock(checkpoint_every_minutes, every)
        with closing(_Log(folder, run, learners, progress, description)) as log:
            _loop(folder, run, learners, batches, log, clock, signals, supervisor)

    averages = {learner.name: learner.finish() for learner in learners}
    history = [(step, means) for step, means in run["history"]]
    return Trained(folder, run["steps"], run["seconds"], history, averages if ema else {})


def learning_rate(step: int, steps: int, warmup: float = 0.02, schedule: str = "cosine") -> float:
    """The factor on the learning rate in step 0..steps-1: up linearly over warmup * steps steps, then constant at
    1 or down a half cosine, which would reach 0 at `steps` (Loshchilov & Hutter 2017, arXiv 1608.03983, eq. 5)."""
    rise = round(warmup * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 1.0 if schedule == "constant" else 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))


# ---- supervision -----------------------------------------------------------------------------------------------------


@dataclass
class Progress:
    """Where a run stands after one of its steps.

    Attributes:
        folder: of the run.
        step, steps: how many are done, of how many.
        batch: the step's batch, as `batches` returned it.
        batches: the function itself.
        averages: {player: the module with the moving average of its weights, in eval mode}; not to be changed.
        precision: "bf16" or "no".
    """

    folder: Path | None
    step: int
    steps: int
    batch: Any
    batches: Callable[[int], Any]
    averages: dict[str, nn.Module]
    precision: str


class Supervisor(Protocol):
    """Decides from outside how long each call of `train` lasts, and looks on after every step: see `supervised`."""

    def minutes(self, folder: Path | None) -> float:
        """How many minutes the run with this folder may take, instead of the steps that it was called with."""

    def after_step(self, progress: Progress) -> None:
        """Called after every step; it should not make the CPU wait for the device."""


_SUPERVISOR: ContextVar[Supervisor | None] = ContextVar("supervisor", default=None)


@contextmanager
def supervised(supervisor: Supervisor) -> Iterator[None]:
    """Within this context, `supervisor` decides how long each call of `train` lasts.

    A recipe of several phases calls `train` several times, deep inside other functions; so the time that all of them
    share need not be an argument of every function on the way.
    """
    token = _SUPERVISOR.set(supervisor)
    try:
        yield
    finally:
        _SUPERVISOR.reset(token)


# ---- the loop --------------------------------------------------------------------------------------------------------


def _loop(
    folder: Path | None, run: dict[str, Any], learners: list[_Learner], batches: Callable[[int], Any], log: _Log,
    clock: _CheckpointClock, signals: _Signals, supervisor: Supervisor | None,
) -> None:  # fmt: skip
    """The steps that are left of a run; its scalars are kept up to date, and the checkpoint is written now and then."""
    steps, first, settings = run["steps"], run["step"], run["settings"]
    accelerator = learners[0].accelerator
    log_every = max(GPU_LOG_STEPS if accelerator.device.type == "cuda" else 1, steps // LOG_ENTRIES)
    averages = {learner.name: learner.ema.module if learner.ema else learner.raw for learner in learners}
    started = time.monotonic() - run["seconds"]
    with closing(_ahead(batches, first, steps, accelerator)) as stream:
        for step, batch in enumerate(stream, start=first):
            if step == first:
                _check_batch(run, batch, lambda: batches(accelerator.process_index), folder)
            rate = learning_rate(step, steps, settings["warmup"], settings["schedule"])
            log.add(_one_step(learners, batch, settings["seed"], step, rate))
            done = step + 1
            if supervisor is not None:
                supervisor.after_step(Progress(folder, done, steps, batch, batches, averages, run["precision"]))
            stopped = signals.received is not None  # once: a signal that comes later waits for the next step's end
            due = done == steps or stopped or clock.due(done)
            if due or done % log_every == 0:
                means = log.flush(done, rate)
                _check_finite(done, means, learners if due else [], folder)
            if due:
                run |= {"step": done, "seconds": time.monotonic() - started}
                _write_checkpoint(folder, learners, run)
                clock.written()
            if stopped:
                kept = f"the same call goes on from {folder}" if folder else "without a folder nothing is kept"
                raise signals.exception(f"Training stopped after step {done} of {steps}; {kept}.")


def _one_step(learners: list[_Learner], batch: Any, seed: int, step: int, rate: float) -> dict[str, Tensor]:
    """Every player's turn, on one batch; returns what to log, still on the device."""
    accelerator = learners[0].accelerator
    # well mixed into 32 bits, since PyTorch's generator on the CPU looks at no more
    mixed = np.random.SeedSequence((seed, step, accelerator.process_index)).generate_state(1)
    # torch.manual_seed also formats the call stack for each kind of device that is not there: a millisecond a step
    kind = accelerator.device.type
    (torch.default_generator if kind in ("cpu", "cuda") else torch).manual_seed(int(mixed[0]))
    if kind == "cuda":
        torch.cuda.manual_seed(int(mixed[0]))
    from accelerate.utils import send_to_device

    batch = send_to_device(batch, accelerator.device, non_blocking=True)
    scalars = {}
    for learner in learners:
        with _turn(learner, learners):
            scalars |= learner.update(batch, step, rate)
        learner.average(step)
    return scalars


def _steps_in(minutes: float, batches: Callable[[int], Any], learners: list[_Learner], seed: int, signals) -> int:
    """How many steps fit into `minutes`: some real steps are timed (for a tenth of it, at most 30 s) and undone."""
    from accelerate.utils import broadcast_object_list

    began = time.monotonic()
    accelerator = learners[0].accelerator
    before = {name: plain(tensor) for learner in learners for name, tensor in learner.tensors().items()}
    budget = min(30.0, 6.0 * minutes)
    with closing(_ahead(batches, 0, None, accelerator)) as stream:
        for step, batch in enumerate(stream):
            _one_step(learners, batch, seed, step, 1e-3)
            if signals.received is not None:
                raise signals.exception("Training stopped before its first step; nothing is lost.")
            if step == 0:  # the first step also pays for allocations and the choice of kernels
                _wait(accelerator.device)
                timed = time.monotonic()
            elif step >= 2 and broadcast_object_list([time.monotonic() - began > budget])[0]:
                break
    _wait(accelerator.device)
    pace = (time.monotonic() - timed) / step
    for learner in learners:
        learner.restore(before)
    left = 60 * minutes - (time.monotonic() - began)
    return broadcast_object_list([max(1, round(left / pace))])[0]


def _wait(device: torch.device) -> None:
    """Until the device has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _ahead(batches: Callable[[int], Any], first: int, last: int | None, accelerator: Accelerator) -> Iterator[Any]:
    """Yield this process's batch of every step, made READ_AHEAD steps ahead in one background thread."""

    @torch.no_grad()  # grad mode belongs to a thread
    def make(step: int) -> Any:
        return batches(step * accelerator.num_processes + accelerator.process_index)

    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    waiting = deque()
    try:
        upcoming = first
        while last is None or upcoming < last or waiting:
            while len(waiting) < READ_AHEAD and (last is None or upcoming < last):
                waiting.append(pool.submit(make, upcoming))
                upcoming += 1
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


# ---- players in training ---------------------------------------------------------------------------------------------


class _Learner:
    """A player in training: its module on the device, its optimiser and its moving average."""

    def __init__(self, player: Player, accelerator: Accelerator, ema: float | None):
        self.name, self.player, self.accelerator = player.name, player, accelerator
        self.raw = player.module.to(accelerator.device).train()
        self.parameters = {name: p for name, p in self.raw.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise ValueError(f"Player {player.name!r} has no parameter to train: give it a module with requires_grad.")
        # Fused on a GPU alone: on a CPU that kernel is wrong where a weight is channels_last and its gradient is not.
        self.fused = accelerator.device.type == "cuda"
        optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=player.lr, betas=player.betas, weight_decay=player.weight_decay,
            fused=self.fused or None,
        )  # fmt: skip
        self.module, self.optimizer = accelerator.prepare(self.raw, optimizer)
        self.ema = _moving_average(self.raw, ema) if ema else None
        self.precision = "no"

    def update(self, batch: Any, step: int, rate: float) -> dict[str, Tensor]:
        """One step of Adam; returns what to log, still on the device."""
        # Accelerator's own mixed precision patches the module's forward for good and misses what else the loss calls.
        with autocast(self.accelerator.device, self.precision):
            loss, scalars = self.player.loss(self.module, batch, step)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        if self.player.clip is not None:
            self.accelerator.clip_grad_norm_(self.parameters.values(), self.player.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.player.lr * rate
        self.optimizer.step()
        logged = {"loss": loss, **scalars}
        return {f"{self.name}/{key}": torch.as_tensor(value).detach() for key, value in logged.items()}

    def average(self, step: int) -> None:
        """Add the weights after this step to the moving average."""
        if self.ema:
            self.ema.update(self.raw, step=step + 1)

    def finish(self) -> dict[str, Tensor]:
        """Put the averaged weights into the module, in eval mode, and return a copy of them."""
        self.raw.eval()
        if self.ema:
            self.raw.load_state_dict(self.ema.module.state_dict())
        return {name: plain(tensor) for name, tensor in self.raw.state_dict().items()}

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by name: weights, moving average, Adam's moments (views, not copies)."""
        found = {f"{self.name}/weights/{name}": tensor for name, tensor in self.raw.state_dict().items()}
        if self.ema:
            found |= {f"{self.name}/ema/{name}": tensor for name, tensor in self.ema.module.state_dict().items()}
        for name, parameter in self.parameters.items():
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if key in self.optimizer.state.get(parameter, {}):
                    found[f"{self.name}/adam/{name}/{key}"] = self.optimizer.state[parameter][key]
        return found

    def restore(self, saved: dict[str, Tensor]) -> None:
        """Take over a state made by `tensors`; copying into tensors that exist keeps their memory format."""
        moments = {}
        for name, parameter in self.parameters.items():
            prefix = f"{self.name}/adam/{name}/"
            if prefix + "step" in saved:
                moments[parameter] = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
                # the fused kernel counts on the device
                moments[parameter]["step"] = torch.zeros((), device=parameter.device if self.fused else "cpu")
        self.optimizer.state.clear()
        self.optimizer.state.update(moments)
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(saved[name])


@contextmanager
def _turn(learner: _Learner, learners: list[_Learner]):
    """Only the player whose turn it is gathers gradients; the others' modules may still pass them on."""
    resting = [p for other in learners if other is not learner for p in other.parameters.values()]
    for parameter in resting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in resting:
            parameter.requires_grad_(True)


# ---- checkpoints, log, signals ---------------------------------------------------------------------------------------


def _resume(folder: Path | None, learners: list[_Learner], settings: dict[str, Any]) -> dict[str, Any] | None:
    """Restore the learners from the folder's checkpoint and return the run's scalars, or None where there is none."""
    state = {name: tensor for learner in learners for name, tensor in learner.tensors().items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items() if "/adam/" not in name}
    found = checkpoint.read(folder, settings, shapes) if folder is not None else None
    if found is None:
        return None
    tensors, run = found
    for learner in learners:
        learner.restore(tensors)
        learner.precision = run["precision"]
    if run["step"] < run["steps"]:
        _warn_of_differences(folder, run, learners[0].accelerator.device)
    return run


def _warn_of_differences(folder: Path, run: dict[str, Any], device: torch.device) -> None:
    """Say what of this machine makes a resumed run slower, or other than an undisturbed one."""
    if run["precision"] == "bf16" and not fast_bfloat16(device.type):
        warnings.warn(
            f"{folder} was begun in bfloat16 and goes on in it, which this device is slow at: "
            "delete the folder to begin again in float32.",
            stacklevel=4,
        )
    if run["threads"] != torch.get_num_threads():
        warnings.warn(
            f"{folder} was begun with {run['threads']} threads and goes on with {torch.get_num_threads()}: "
            "sums round differently, so the weights will not be bit for bit those of an undisturbed run.",
            stacklevel=4,
        )


def _write_checkpoint(folder: Path | None, learners: list[_Learner], run: dict[str, Any]) -> None:
    if folder is not None and learners[0].accelerator.is_main_process:
        tensors = {name: tensor for learner in learners for name, tensor in learner.tensors().items()}
        checkpoint.write(folder, tensors, run)


class _CheckpointClock:
    """Says when a checkpoint is due: after so many minutes, or after so many steps."""

    def __init__(self, minutes: float, steps: int | None):
        self.seconds, self.steps = 60 * minutes, steps
        self.written()

    def due(self, done: int) -> bool:
        return bool(self.steps and done % self.steps == 0) or time.monotonic() - self.last > self.seconds

    def written(self) -> None:
        self.last = time.monotonic()


class _Log:
    """The progress bar, and means of the scalars, kept on the device until asked for; TensorBoard beside them in the
    main process, where it is installed."""

    def __init__(self, folder: Path | None, run: dict, learners: list[_Learner], progress: bool, description: str):
        main, self.players = learners[0].accelerator.is_main_process, len(learners)
        self.folder = folder if main else None
        self.history, self.first = run["history"], run["step"]
        self.values, self.writer = {}, None
        self.bar = tqdm(
            total=run["steps"], initial=self.first, desc=description, unit="step", dynamic_ncols=True, mininterval=1.0,
            disable=not progress or not main or self.first == run["steps"],
        )  # fmt: skip

    def add(self, scalars: dict[str, Tensor]) -> None:
        """The scalars of one step."""
        for name, value in scalars.items():
            self.values.setdefault(name, []).append(value)
        self.bar.update()

    def flush(self, step: int, rate: float) -> dict[str, float]:
        """The means since the last call, over the steps that gave a value; a single player's name is left out."""
        means = {name: float(torch.stack(values).float().mean()) for name, values in self.values.items()}
        if self.players == 1:
            means = {name.split("/", 1)[1]: value for name, value in means.items()}
        self.values = {}
        self.history.append((step, means))
        self.bar.set_postfix({key: f"{means[key]:.4g}" for key in means if key.endswith("loss")}, refresh=False)
        try:
            for name, value in (means | {"learning_rate": rate}).items():
                if self._writer():
                    self.writer.add_scalar(name, value, step)
        except OSError as error:  # a full disk, a folder that is gone: the checkpoint decides whether training goes on
            warnings.warn(f"TensorBoard's log ends at step {step}: {error}.", stacklevel=3)
            self.folder = self.writer = None
        return means

    def _writer(self):
        if self.folder is not None and self.writer is None:
            try:
                from torch.utils.tensorboard import SummaryWriter  # slow to import, so only where something is written
            except ImportError:  # without TensorBoard there is no such log, and nothing else changes
                self.folder = None
                return None
            self.writer = SummaryWriter(self.folder / "tensorboard", purge_step=self.first, flush_secs=120)
        return self.writer

    def close(self) -> None:
        self.bar.close()
        if self.writer:
            with suppress(OSError):
                self.writer.close()


class _Signals:
    """Lets Ctrl-C and SIGTERM wait for the end of the step; a second one acts at once. Main thread only.

    One that comes behind the last step acts when the training is over.
    """

    def __init__(self):
        self.received, self.before = None, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self.note)
        return self

    def note(self, number, frame):
        self.received = number
        self.restore()

    def restore(self):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __exit__(self, kind, *exception):
        self.restore()
        if self.received is not None and kind is None:
            signal.raise_signal(self.received)

    def exception(self, sentence: str) -> BaseException:
        if self.received == signal.SIGINT:
            return KeyboardInterrupt(sentence)
        print(sentence, file=sys.stderr)  # Python prints nothing where an exit has a number
        stop = SystemExit(sentence)
        stop.code = 128 + self.received
        return stop


def _moving_average(module: nn.Module, decay: float) -> nn.Module:
    """An exponential moving average of the weights, timm's; importing timm takes seconds."""
    from timm.utils import ModelEmaV3

    return ModelEmaV3(module, decay=decay, use_warmup=True, warmup_power=0.75)


def _accelerator() -> Accelerator:
    """An Accelerator in float32; its settings are one per process, so another part's precision is dropped."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs

    if AcceleratorState._shared_state.get("_mixed_precision", "no") != "no":
        AcceleratorState._reset_state()
    partly = DistributedDataParallelKwargs(find_unused_parameters=True)  # a step may train only a part of a module
    return Accelerator(mixed_precision="no", kwargs_handlers=[partly])


def _check_batch(run: dict[str, Any], batch: Any, begin: Callable[[], Any], folder: Path | None) -> None:
    """Note the shapes of a run's first batch; ValueError where one that goes on has others.

    Shapes may change from step to step: only where this step's are others is the call's own first batch made again.
    """
    if run["step"] == 0:
        run["batch"] = _shapes(batch)
    elif (made := run.get("batch")) and made != _shapes(batch) and made != (given := _shapes(begin())):
        raise ValueError(f"{folder} was made with batches of {made}, this call has {given}: use another folder.")


def _shapes(batch: Any) -> Any:
    """The shapes of a batch's tensors, JSON."""
    if isinstance(batch, Tensor | np.ndarray):
        return list(batch.shape)
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, tuple | list) else []
    return [_shapes(part) for part in parts]


def _check_finite(step: int, means: dict[str, float], learners: list[_Learner], folder: Path | None) -> None:
    """Before anything is saved: stop if a loss, or one of Adam's moments (hence a gradient), is not finite."""
    moments = {key: t for learner in learners for key, t in learner.tensors().items() if "/adam/" in key}
    broken = [key for key, value in means.items() if key.endswith("loss") and not math.isfinite(value)]
    broken += [key for key, tensor in moments.items() if not torch.isfinite(tensor).all()]
    if broken:
        kept = f"the checkpoint before is kept in {folder}" if folder else "without a folder nothing is kept"
        raise FloatingPointError(
            f"{broken[0]} is not finite by step {step}; {kept}: "
            "lower the learning rate, clip the gradient, or keep float32."
        )


def _check_settings(players, steps, minutes, seed, ema, warmup, schedule, precision) -> None:
    names = [player.name for player in players]
    if not players or len(set(names)) < len(names) or any("/" in name for name in names):
        raise ValueError(f"Players need distinct names without '/', and there must be one at least; got {names}.")
    if wrong := [p.name for p in players if not (0 <= p.lr < math.inf and p.weight_decay >= 0 and max(p.betas) < 1)]:
        raise ValueError(f"lr and weight_decay are 0 or more, and betas below 1: give {wrong[0]} others.")
    if (steps is None) == (minutes is None):
        raise ValueError("Give either steps or minutes, not both and not neither.")
    check_whole_number(1 if steps is None else steps, 1, "steps")
    check_minutes(1 if minutes is None else minutes)
    check_seed(seed)
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema must lie between 0 and 1, or be None for no moving average; got {ema!r}.")
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is a share of the steps, from 0 to below 1; got {warmup!r}.")
    if schedule not in ("cosine", "constant"):
        raise ValueError(f'schedule must be "cosine" or "constant", got {schedule!r}.')
    resolve(precision, "cpu")  # whether there is such a precision
