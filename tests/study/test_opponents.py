"""The opponents of chapter 7, on a network that loses nothing, so that each can find the image."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from invkit.dci.invert import invert_classifier
from invkit.dci.training import Schedule
from invkit.metrics import psnr
from invkit.network.classifiers import Classifier
from study import opponents
from study.deep_image_prior import DeepImagePrior
from study.norm_statistics import distances, mean_distance, norms_before
from study.opponents import RUN, SETTINGS, Budget, oppose

SIZE = 32


@pytest.fixture(scope="module")
def inverter():
    """Of two blocks, each a convolution with a batch norm: 3 -> 12 channels at half the side, then 12 -> 16."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 12, 2, 2, bias=False), nn.BatchNorm2d(12))
    second = nn.Sequential(nn.Conv2d(12, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    classifier = Classifier(nn.Sequential(first, second, head), "small", SIZE)
    pool = (255 * torch.rand(4, 3, 2 * SIZE, 2 * SIZE, generator=torch.Generator().manual_seed(1))).byte()
    plan = {"depth": 1, "sizes": [(8, 1)], "crops": lambda depth: (2, SIZE), "schedule": Schedule(10, 0)}
    return invert_classifier(classifier, pool, **plan)


@pytest.fixture(scope="module")
def images():
    """Two smooth images."""
    coarse = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    return nn.functional.interpolate(coarse, SIZE, mode="bilinear")


def grey(images):
    return psnr(torch.full_like(images, 0.5), images)


@pytest.mark.parametrize("name", [name for name in RUN if not name.startswith("search")])
def test_every_opponent_comes_nearer_to_each_image_than_grey(name, inverter, images):
    settings = replace(SETTINGS[name], steps=40, tv=1e-4, rate=0.03)
    found = oppose(name, inverter, inverter.represent(images, 1), 1, settings=settings)
    assert found.images.shape == images.shape and 0 <= found.images.min() and found.images.max() <= 1
    assert found.steps == 40 and found.seconds > 0
    assert (psnr(found.images, images) > grey(images) + 3).all()


def test_a_search_takes_the_steps_that_it_is_given(inverter, images):
    name = "search behind the chain"
    settings = replace(SETTINGS[name], steps=7)
    found = oppose(name, inverter, inverter.represent(images, 1), 1, settings=settings)
    assert found.steps == 7 and found.images.shape == images.shape


@pytest.mark.parametrize(("seconds", "steps"), [(1e-9, 1), (60.0, 3)])
def test_a_search_takes_what_the_seconds_buy_one_step_at_least_and_no_more_than_it_may(
    inverter, images, seconds, steps
):
    name = "search behind the chain"
    settings = replace(SETTINGS[name], steps=3)
    found = oppose(name, inverter, inverter.represent(images[:1], 1), 1, seconds, settings=settings)
    assert found.steps == steps


def test_a_search_uses_its_seconds_whatever_a_batch_costs(monkeypatch):
    """On a clock that invert() moves: 0.1 s once, and 0.01 s for each step and image."""
    now = [0.0]

    class Slow:
        def invert(self, features, depth, search):
            now[0] += 0.1 + 0.01 * search * len(features)
            return features

    monkeypatch.setattr(opponents.time, "process_time", lambda: now[0])
    found = oppose("search behind the chain", Slow(), torch.zeros(2, 3, 4, 4), 1, seconds=1.0)
    assert found.steps == 95 and found.seconds == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["from grey", "from the chain"])
def test_images_are_optimised_without_one_another(name, inverter, images):
    features, settings = inverter.represent(images, 1), replace(SETTINGS[name], steps=5)
    noise = opponents._noise(2, SIZE, 0, images)
    both = oppose(name, inverter, features, 1, settings=settings).images
    first = oppose(name, inverter, features[:1], 1, settings=settings).images
    assert torch.equal(noise[:1], opponents._noise(1, SIZE, 0, images))  # so that both start alike
    assert torch.allclose(both[:1], first, atol=1e-4)


def test_the_chain_s_own_reconstruction_is_where_it_starts(inverter, images):
    settings = replace(SETTINGS["from the chain"], steps=1, rate=1e-9, tv=0.0)
    features = inverter.represent(images, 1)
    found = oppose("from the chain", inverter, features, 1, settings=settings).images
    assert torch.allclose(found, inverter.invert(features, 1), atol=1e-5)


def test_restarts_are_a_mean(inverter, images):
    """Of two starts it lies between them: the mean of its own two is what one of each would give."""
    features = inverter.represent(images[:1], 1)
    settings = replace(SETTINGS["restarts, averaged"], steps=1, rate=1e-9, tv=0.0)
    one, two = (
        oppose("restarts, averaged", inverter, features, 1, settings=replace(settings, starts=starts)).images
        for starts in (1, 2)
    )
    assert (one - 0.5).square().mean() > 1.3 * (two - 0.5).square().mean()  # averages of noise have less of it


def test_a_budget_is_the_share_of_what_binds():
    clock = Budget(seconds=1e6, steps=4)
    assert clock.spent(0) < 0.01 and clock.spent(1) == 0.25 and clock.spent(4) == 1
    assert Budget(seconds=1e-12).spent(0) >= 1
    for nothing in ({}, {"seconds": 0.0}, {"steps": -1}):
        with pytest.raises(ValueError, match="a positive number of seconds or steps"):
            Budget(**nothing)


def test_seconds_end_a_descent_after_one_step_at_least(inverter, images):
    found = oppose("from grey", inverter, inverter.represent(images, 1), 1, seconds=1e-9)
    assert found.steps == 1


def test_an_unknown_opponent_is_named(inverter, images):
    with pytest.raises(ValueError, match="no opponent 'luck'; choose one of from grey"):
        oppose("luck", inverter, inverter.represent(images, 1), 1, seconds=1.0)


def test_networks_of_a_prior_do_not_see_one_another():
    """Two in one convolution each give what its own weights say: a change of the second leaves the first alone."""
    both = DeepImagePrior(2, SIZE, channels=8, seed=3)
    before = both.images().detach()
    with torch.no_grad():
        for variable in both.variables:
            variable[len(variable) // 2 :] += 0.3
    after = both.images().detach()
    assert before.shape == (2, 3, SIZE, SIZE) and torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1], atol=1e-3)


def test_the_prior_is_zero_where_the_norms_see_what_they_keep_and_grows_elsewhere(inverter):
    norms = norms_before(inverter.classifier, 2)
    assert len(norms) == 2 and len(norms_before(inverter.classifier, 1)) == 1
    h = torch.randn(4, 12, 8, 8, generator=torch.Generator().manual_seed(4))
    norm = nn.BatchNorm2d(12, momentum=1.0)
    norm(h)  # keeps the statistics of h; the variance it keeps is that of a sample
    norm.eval()
    seen = []
    with distances([norm]) as found:
        for values in (h, h + 1, 2 * h):
            norm(values)
            seen.append(mean_distance(found).item())
    assert seen[0] == pytest.approx(0, abs=1e-4) and seen[1] > 0.5 and seen[2] > 0.5
    norm(h)
    assert found == []  # the hooks are gone
    assert mean_distance([]).item() == 0
