"""Refining deep inverses from cached representations: what is trained, what stays, and how exactly."""

import pytest
import torch
from torch import nn

from invkit import dci, synthetic
from invkit.dci import Chain, Weights
from invkit.refine import refine, remember

SHAPES = [(3, 16, 16), (6, 16, 16), (8, 8, 8), (8, 8, 8)]
WEIGHTS = Weights(block=0.3, input=1, cycle=0)


@pytest.fixture(scope="module")
def blocks():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=1)
    return [nn.Sequential(layer, nn.ReLU()).requires_grad_(False) for layer in layers]


@pytest.fixture(scope="module")
def pool():
    return synthetic.draw_pool(32, 24, seed=0)


@pytest.fixture(scope="module")
def remembered(blocks, pool):
    return remember(blocks, lambda step: pool.batch(step, 8, 16), 1, 8, thumbnail=8)


def refined(blocks, remembered, steps=40, **settings):
    torch.manual_seed(1)
    chain = Chain(SHAPES, [(8, 1)] * 3)
    before = {name: value.clone() for name, value in chain.state_dict().items()}
    done = refine(
        chain, blocks, remembered, 1, 3, batch=8, steps=steps, preview_steps=40, lr=3e-3, weights=WEIGHTS,
        preview=(16, 1), progress=False, **settings,
    )  # fmt: skip
    return chain, before, done


def test_remembered_representations_are_the_blocks_own(blocks, pool, remembered, tmp_path):
    images = pool.batch(3, 8, 16)
    kept = slice(3 * 8, 4 * 8)
    torch.testing.assert_close(
        remembered.hidden[kept].float(), dci.represent(blocks, images, 1)[1], rtol=0.02, atol=0.02
    )
    shrunk = images.unfold(2, 2, 2).unfold(3, 2, 2).mean((4, 5))
    torch.testing.assert_close(remembered.thumbnails[kept] / 255, shrunk, rtol=0, atol=1 / 255)
    assert torch.equal(remembered.batch(5, 4)[0], remembered.batch(5, 4)[0])
    assert not torch.equal(remembered.batch(5, 4)[0], remembered.batch(6, 4)[0])

    def never(step):
        raise AssertionError("the file should have been read")

    first = remember(
        blocks, lambda step: pool.batch(step, 8, 16), 1, 2, thumbnail=8, file=tmp_path / "kept.safetensors"
    )
    again = remember(blocks, never, 1, 2, thumbnail=8, file=tmp_path / "kept.safetensors")
    assert torch.equal(first.hidden, again.hidden) and torch.equal(first.thumbnails, again.thumbnails)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.safetensors"]


def test_only_the_inverses_below_the_cut_learn_and_they_do(blocks, remembered):
    chain, before, (taught, trained) = refined(blocks, remembered, steps=80)
    changed = {name for name, value in chain.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and not any(name.startswith("inverses.0.") for name in changed)
    assert {name.split(".")[1] for name in changed} == {"1", "2"}
    for run, scalar in ((taught, "input"), (trained, "input"), (trained, "block")):
        values = [scalars[scalar] for _, scalars in run.history]
        assert sum(values[-5:]) < sum(values[:5])
    assert all(parameter.requires_grad for parameter in chain.parameters())


def test_refining_resumes_exactly(blocks, remembered, tmp_path):
    whole, _, _ = refined(blocks, remembered)

    class Cut(Exception):
        pass

    class Interrupted(type(remembered)):
        def batch(self, step, n, seed=0):
            if seed == 2 and step == 25:
                raise Cut
            return super().batch(step, n, seed)

    broken = Interrupted(remembered.hidden, remembered.thumbnails)
    with pytest.raises(Cut):
        refined(blocks, broken, folder=tmp_path)
    assert (tmp_path / "refine-01").is_dir()
    resumed, _, _ = refined(blocks, remembered, folder=tmp_path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_cycle_term_is_refused(blocks, remembered):
    with pytest.raises(ValueError, match="cycle=0"):
        refine(
            Chain(SHAPES, [(8, 1)] * 3), blocks, remembered, 1, 3, batch=8, steps=1, preview_steps=1, lr=1e-3,
            weights=Weights(),
        )  # fmt: skip
