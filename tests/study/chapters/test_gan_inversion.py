"""The evaluation of an inverted generator, on a generator whose inverse is known."""

import pytest
import torch
from torch import nn

from invkit.dci.chain import ChainLossWeights
from invkit.network.classifiers import Classifier
from invkit.network.generators import Generator
from invkit.optimize import invert_latents
from invkit.statistics import Interval
from study.chapters import gan_inversion
from study.chapters.gan_inversion import Arm

SIZES = ((6, 0), (6, 0))
END = (0.0, 1.0)  # visits of the deepest inverse alone


@pytest.fixture(scope="module")
def generator():
    """4 numbers -> 2 x 16 x 16 -> 3 x 32 x 32, without noise or ReLU."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Unflatten(1, (4, 1, 1)), nn.ConvTranspose2d(4, 2, 16))
    second = nn.Sequential(nn.ConvTranspose2d(2, 3, 4, 2, 1), nn.Tanh())
    return Generator(nn.Sequential(first, second), "tiny", 4, [("first", first), ("second", second)])


def test_true_latents_are_recovered_and_others_are_not(generator):
    latents = generator.sample_latents(6)
    near = gan_inversion.recovery(generator, latents + 1e-3, latents)
    assert near.cosine.min() > 0.999 and near.explained.mean() > 0.999 and near.psnr.min() > 40
    opposite = gan_inversion.recovery(generator, -latents, latents)
    assert opposite.cosine.max() < -0.99 and opposite.explained.mean() < 0
    assert (opposite.psnr < near.psnr).all() and (opposite.perceptual > near.perceptual).all()


def test_explained_shares_average_to_r2(generator):
    latents = generator.sample_latents(20)
    found = 0.7 * latents + 0.1
    explained = gan_inversion.recovery(generator, found, latents).explained
    assert explained.mean().item() == pytest.approx(gan_inversion.metrics.r2(found, latents), abs=1e-5)


def test_a_path_is_the_psnr_of_the_images(generator):
    latents = generator.sample_latents(3)
    images = gan_inversion.regenerate(generator, latents, batch=2)
    found = invert_latents(generator, images, "adam", steps=4, seed=1)
    path = gan_inversion.psnr_path(found)
    last = gan_inversion.metrics.psnr(gan_inversion.regenerate(generator, found.estimate), images)
    assert path.shape == (5, 3) and torch.allclose(path[-1], last, atol=1e-3)


def test_seconds_buy_whole_steps():
    path = torch.tensor([[0.0, 0.0], [10.0, 12.0], [20.0, 22.0]])  # two steps of one second each
    bought = gan_inversion.psnr_within(path, 2.0, [0.9, 1.0, 1.9, 2.0, 50.0])
    assert bought[0] is None and [b.value for b in bought[1:]] == [11, 11, 21, 21]
    later = gan_inversion.psnr_within(path, 2.0, [1.0, 1.6], before=0.5)
    assert later[0] is None and later[1].value == 11
    with pytest.raises(ValueError, match="at least one step"):
        gan_inversion.psnr_within(path[:1], 2.0, [1.0])


def test_operations_count_every_step_and_every_latent(generator):
    arm = Arm(divide=0, synchronise=3, weights=ChainLossWeights(0, 1, 0), often=END)
    cost = gan_inversion.operations(generator, arm, SIZES, batch=4)
    blocks = 2 * 4 * 2 * 16**2 + 2 * 16**2 * 2 * 3 * 16  # forward: each input number times its kernel
    assert cost > 3 * 4 * blocks
    assert gan_inversion.operations(generator, arm, SIZES, batch=8) == 2 * cost
    with_cycle = Arm(divide=0, synchronise=3, weights=ChainLossWeights(0, 1, 1), often=END)
    extra = gan_inversion.operations(generator, with_cycle, SIZES, batch=4) - cost
    assert extra == 3 * 4 * 2 * blocks  # again forward, and backward to the latent
    both = gan_inversion.operations(generator, Arm(2, 3, ChainLossWeights(0, 1, 0), END), SIZES, batch=4)
    divided = gan_inversion.operations(generator, Arm(2, 0, ChainLossWeights(0, 1, 0), END), SIZES, batch=4)
    assert both == cost + divided


def test_equal_compute_is_spent_to_the_last_step(generator):
    dci = Arm(2, 5, ChainLossWeights(0.1, 1, 1), (1.0, 1.0))
    compute = gan_inversion.operations(generator, dci, SIZES, batch=4)
    direct = gan_inversion.with_compute(generator, Arm(0, 0, ChainLossWeights(0, 1, 0), END), SIZES, 4, compute)
    spent = gan_inversion.operations(generator, direct, SIZES, batch=4)
    assert spent <= compute < spent * (direct.synchronise + 1) / direct.synchronise
    with pytest.raises(ValueError, match="give at least"):
        gan_inversion.with_compute(generator, Arm(0, 0, ChainLossWeights(0, 1, 0), END), SIZES, 4, 10.0)


def test_training_an_arm_learns_latents(generator):
    latents = generator.sample_latents(50, seed=9)
    images = gan_inversion.regenerate(generator, latents)
    trained = [
        gan_inversion.train_arm(generator, Arm(0, steps, ChainLossWeights(0, 1, 0), END), SIZES, 16, seed=1)
        for steps in (1, 60)
    ]
    first, last = (gan_inversion.metrics.cosine(gan_inversion.invert(t, images), latents).mean() for t in trained)
    assert last > 0.9 and last > first


def test_a_judge_finds_the_broken_images():
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    classifier = Classifier(nn.Sequential(first, head), "tiny", size=32, blocks=[("first", first), ("head", head)])
    smooth = torch.linspace(0, 1, 32).expand(60, 3, 32, 32) * (0.5 + 0.3 * torch.rand(60, 1, 1, 1))
    typical, whole = smooth.split([50, 10])
    broken = whole.clone()
    broken[..., 8:24, 8:24] = torch.rand(10, 3, 16, 16)
    judge = gan_inversion.Judge(classifier, typical, depth=1)
    before, after = judge(whole), judge(broken)
    assert before.keys() == {"features", "thumbnail"}
    assert all((after[name] > before[name]).all() for name in before)


def interval(low, high):
    return Interval((low + high) / 2, low, high, 20)


@pytest.mark.parametrize(
    ("change", "gain", "word"),
    [
        ((-2, -1), (-2, -1), "mends"),
        ((-2, -1), (-1, 0.5), "mends no better than a control"),
        ((-2, 0.1), (-2, -1), "does not mend"),
        ((1, 2), (-2, -1), "does not mend"),
    ],
)
def test_the_verdict_follows_its_rule(change, gain, word):
    changes = {"features": interval(-2, -1), "thumbnail": interval(*change)}
    against = {"norm": {"features": interval(-2, -1)}, "move": {"thumbnail": interval(*gain)}}
    assert gan_inversion.verdict(changes, against) == word
