"""Small trainings, alone or as one of two processes, as `test_two_processes` runs them.

In two processes each has half a batch. All noise is a function of the logits, so that halves and wholes get the same.
"""

import os
import signal
from unittest.mock import patch

import torch
from torch import distributed, nn

import invkit.training
from invkit import dci
from invkit.ffi import training
from invkit.ffi.biggan import LogitGenerator, ProjectionDiscriminator

PARTS, N, STEPS, SIDE = 2, 4, 20, 16


def half(k, dtype):
    numbers = torch.Generator().manual_seed(k)
    images, logits = torch.rand(N, 3, SIDE, SIDE, generator=numbers), torch.randn(N, 5, generator=numbers)
    return images.to(dtype), logits.to(dtype)


def batch(step, dtype, world):
    """Half a batch of one of two processes, for which `step` counts halves; or the whole."""
    if world > 1:
        return half(step, dtype)
    return tuple(torch.cat(parts) for parts in zip(*(half(PARTS * step + p, dtype) for p in range(PARTS)), strict=True))


def noise(generator, z):
    weights = torch.linspace(-1, 1, z.shape[1] * generator.noise_dim, dtype=z.dtype)
    return torch.sin(7 * z @ weights.view(z.shape[1], -1))


def train_logit_inverter(objective, dtype, world):
    """What a generator and a discriminator make of other logits, once trained."""
    torch.manual_seed(0)
    generator = LogitGenerator(SIDE, 5, channels=(8, 8, 8), hidden=8, shared_dim=4).to(dtype)
    discriminator = ProjectionDiscriminator(SIDE, 5, channels=(8, 8)).to(dtype)
    training.train_generator(
        generator, lambda step: batch(step, dtype, world), steps=STEPS, objective=objective,
        discriminator=discriminator, adversarial_share=0.5, augment=False, precision="no", progress=False,
    )  # fmt: skip
    _, z = half(999, dtype)
    return generator, discriminator, z


def train_chain(dtype, world):
    """The weights of a chain of two inverses."""
    torch.manual_seed(0)
    blocks = [nn.Conv2d(3, 6, 3, 2, 1).to(dtype), nn.Conv2d(6, 8, 3, 2, 1).to(dtype)]
    shapes = [(3, SIDE, SIDE), (6, SIDE // 2, SIDE // 2), (8, SIDE // 4, SIDE // 4)]
    chain, first = dci.Chain(shapes, [(6, 1), (6, 1)]).to(dtype), half(0, dtype)[0]
    with torch.no_grad():
        hidden = [first, blocks[0](first), blocks[1](blocks[0](first))]
        for k, inverse in enumerate(chain.inverses):
            inverse.calibrate(hidden[k + 1], hidden[k])

    def batches(step, depth):  # of each depth others, so that all processes have to visit the same
        return batch(step, dtype, world)[0] * depth / 2

    schedule = dci.Schedule(synchronise=STEPS)
    dci.synchronise(chain, blocks, batches, schedule=schedule, precision="no", progress=False)
    with patch.object(dci.training, "start_linear"):  # it fits what each process sees
        dci.training.divide_at_once(
            chain, blocks, batches, schedule=dci.Schedule(divide=3), precision="no", progress=False
        )  # fmt: skip
    return chain.state_dict()


def train_all(world):
    """{name: tensor} of all that has to be equal."""
    training.random_noise = noise
    chain = train_chain(torch.double, world)
    regression, _, _ = train_logit_inverter("regression", torch.double, world)
    generator, discriminator, z = train_logit_inverter("hybrid", torch.float, world)
    if world > 1:
        distributed.destroy_process_group()
    # Biases before a batch norm change nothing, and Adam moves them by their rounding errors: so compare what comes
    # out, normalised by the batch.
    with torch.no_grad():
        images = generator.train()(noise(generator, z), z)
        scores = discriminator.train()(images, z)
    weights = regression.state_dict() | {f"chain.{name}": tensor for name, tensor in chain.items()}
    return {name: plain for name, plain in weights.items() if plain.is_floating_point()} | {
        "images": images, "scores": scores,
    }  # fmt: skip


def train_with_checkpoints(folder, world, die_at=None):
    """{name: tensor} after a training that keeps a checkpoint every four steps, and how many batches were asked for.

    The second process kills itself when it is asked for batch `die_at`.
    """
    torch.manual_seed(0)
    network, asked = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)).double(), []

    def batches(step):
        asked.append(step)
        if step == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(step, torch.double, world)[0]

    def loss(module, images, step):
        return (module(images) - images[..., 2:-2, 2:-2]).square().mean(), {}

    player = invkit.training.Player("network", network, loss, 1e-2)
    settings = {"steps": STEPS, "precision": "no", "checkpoint_every_steps": 4, "progress": False}
    invkit.training.train(player, batches, folder=folder, **settings)
    return network.state_dict() | {"asked": torch.tensor(float(len(asked)))}


def main(environment, out, folder=None, die_at=None):
    """What each of two processes runs; the first one keeps what was trained in the file `out`."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    if folder is not None:
        found = train_with_checkpoints(folder, PARTS, die_at)
        distributed.destroy_process_group()
    else:
        found = train_all(PARTS)
    if os.environ["RANK"] == "0":
        torch.save(found, out)
