"""Training a generator: coarse images, two players, resuming, collapse, settings."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from invkit.dci import chain
from invkit.ffi import losses, training
from invkit.ffi.biggan import LogitGenerator, ProjectionDiscriminator
from invkit.ffi.pairs import pairs

SMALL = {"generator": {"channels": (16, 16, 8), "noise_dim": 12, "hidden": 16, "shared_dim": 16, "coarse": 4}}
SMALL |= {"discriminator": {"channels": (8, 16)}, "progress": False}


def test_identification_lets_more_be_found(classifier, images):
    z, seen = classifier.logits(images).detach(), (255 * images).byte()

    def found(identify):
        torch.manual_seed(0)
        g = LogitGenerator(16, z.shape[1], channels=(8, 8, 8), coarse=4, coarse_hidden=16)
        g.whitening.fit(z)
        training.fit_coarse_images(g, seen, z, 200, identify=identify, progress=False)
        small = F.adaptive_avg_pool2d(seen.float() / 255, 4)
        with torch.no_grad():
            read = g.coarse(g.whitening(z), z.softmax(1))
        return losses.identification(read, small).item()

    assert found(3.0) < found(0.0) - 1e-4


def test_identification_beside_an_adversary_lets_more_be_found(classifier, images):
    images = images[:64]
    z = classifier.logits(images).detach()

    def found(weight):
        torch.manual_seed(0)
        g, d = (network(16, z.shape[1], channels=(8, 8, 8)) for network in (LogitGenerator, ProjectionDiscriminator))
        g.whitening.fit(z)
        training.train_generator(
            g, lambda step: (images, z), steps=24, discriminator=d, adversarial_share=0.9, adversarial_lr=2e-3,
            augment=False, progress=False,
            weights=training.GeneratorLossWeights(pixel=1, adversary=0.01, features=0, identify_late=weight),
        )  # fmt: skip
        with torch.no_grad():
            return losses.identification(g(torch.zeros(len(z), g.noise_dim), z), images).item()

    assert found(1.0) < found(0.0)


def test_consistency_lets_the_classifier_see_more_of_what_it_saw(classifier, images):
    images = images[:64]
    z = classifier.logits(images).detach()

    def missed(weight):
        torch.manual_seed(0)
        g = LogitGenerator(16, z.shape[1], channels=(8, 8, 8))
        g.whitening.fit(z)
        training.train_generator(
            g, lambda step: (images, z), steps=30, objective="regression", progress=False,
            consistent=[classifier.logits], weights=training.GeneratorLossWeights(features=0, consistency=weight),
        )  # fmt: skip
        with torch.no_grad():
            seen = classifier.logits(g(torch.zeros(len(z), g.noise_dim), z))
        return (seen - z).square().mean().item()

    assert missed(3.0) < missed(0.0)


class Painter(nn.Module):
    """Draws one of two colours on either side of what it knows of the logits; without noise, what it was taught to."""

    noise_dim = 1

    def __init__(self):
        super().__init__()
        self.guess, self.middle, self.side = nn.Linear(10, 3), nn.Linear(10, 3), nn.Parameter(torch.tensor(0.05))

    def forward(self, noise, z):
        colours = torch.where(noise == 0, self.guess(z), self.middle(z) + self.side * noise.sign())
        return colours[:, :, None, None].expand(-1, -1, 16, 16)


def test_beside_an_adversary_the_reading_without_noise_is_regressed_on(images):
    """Its error, with what tells images apart, is one more term, of what is drawn without noise and of that alone."""
    torch.manual_seed(0)
    painter, discriminator, z = Painter(), ProjectionDiscriminator(16, 10, channels=(8, 8)), torch.randn(6, 10)

    def turn(weight):
        weights = training.GeneratorLossWeights(reading=weight, identify=0.1)
        player, _ = training.adversarial_players(
            painter, discriminator.eval(), weights, None, 1e-3, augment=False, grace=1
        )
        painter.zero_grad()
        torch.manual_seed(1)
        loss, terms = player.loss(painter, (images[:6], z), 0)
        loss.backward()
        return terms, painter.guess.weight.grad.clone(), painter.middle.weight.grad.clone()

    _, unasked, middle = turn(0.0)
    terms, asked, same = turn(2.0)
    assert unasked.abs().max() == 0 and torch.equal(middle, same)
    painter.zero_grad()
    guess = painter(torch.zeros(6, 1), z)
    alone = 2 * (chain.log_error(guess, images[:6]) + 0.1 * losses.identification(guess, images[:6]))
    alone.backward()
    assert terms["reading"].item() == pytest.approx(alone.item(), abs=1e-5)
    torch.testing.assert_close(asked, painter.guess.weight.grad)


def networks() -> tuple[LogitGenerator, ProjectionDiscriminator]:
    torch.manual_seed(0)
    generator = LogitGenerator(16, 10, **SMALL["generator"], logit_noise=0.1)
    return generator, ProjectionDiscriminator(16, 10, **SMALL["discriminator"])


def test_a_stopped_run_ends_as_an_undisturbed_one(classifier, images, tmp_path):
    """Two players, both phases: stopped in the middle of either, it goes on bit for bit."""
    made = pairs(classifier, images)

    def run(folder, stop: int | None = None):
        generator, discriminator = networks()
        training.fit_coarse_images(generator, made.images[0], made.logits[0])

        def batches(step: int):
            if step == stop:
                raise RuntimeError("stopped")
            return made.batch(step, 8)

        training.train_generator(
            generator, batches, steps=12, discriminator=discriminator, adversarial_share=0.5, folder=folder,
            progress=False,
        )  # fmt: skip
        return generator.state_dict()

    undisturbed = run(tmp_path / "a")
    for stop in (4, 10):
        with pytest.raises(RuntimeError, match="stopped"):
            run(tmp_path / "b", stop)
    again = run(tmp_path / "b")
    assert all(torch.equal(undisturbed[name], again[name]) for name in undisturbed)
    assert all(torch.equal(undisturbed[name], tensor) for name, tensor in run(None).items())  # no folder, same weights


def test_only_the_player_whose_turn_it_is_learns(classifier, images):
    """Gradients of the generator's turn pass through the discriminator without moving it, and the other way round."""
    generator, discriminator = networks()
    first, second = training.adversarial_players(generator, discriminator, training.WEIGHTS, None, 1e-3)
    batch = pairs(classifier, images).batch(0, 8)
    loss, terms = first.loss(generator, batch, 0)
    assert set(terms) == {"adversary", "pixel"} and loss.item() == pytest.approx(sum(terms.values()).item())
    loss, _ = second.loss(discriminator, batch, 0)
    loss.backward()
    assert all(p.grad is None for p in generator.parameters())
    assert all(p.grad is not None for p in discriminator.parameters())


def test_useless_drawings_are_noticed(images):
    check = training.check_samples
    check(images[:16], images[16:32])  # other images of the same kind are not alike
    with pytest.raises(training.Collapsed, match="not finite"):
        check(torch.full((4, 3, 16, 16), math.nan), images[:4])
    with pytest.raises(training.Collapsed, match="collapsed: samples vary 0.0%"):
        check(images[:1].expand(8, -1, -1, -1), images[:8])
    noise = torch.rand(16, 3, 16, 16)
    dark = images[:16] * 0.1
    check(noise, dark)
    with pytest.raises(training.Collapsed, match="worse than the mean image"):
        check(noise, dark, like=True)


@pytest.mark.parametrize(("objective", "good", "step"), [("hybrid", 1, 1), ("adversarial", 1, 8), ("hybrid", 0, 0)])
def test_a_collapse_is_said_and_the_last_good_weights_stay(classifier, images, objective, good, step, monkeypatch):
    """Checked after `good` good steps (the first fifth of a training from scratch is not), checkpoints at 8, 10, …"""
    made, calls = pairs(classifier, images), []

    def collapse(drawn, truth, like=False):
        calls.append(drawn)
        if len(calls) > good:
            raise training.Collapsed("The adversarial training collapsed: drawings are alike.")

    monkeypatch.setattr(training, "check_samples", collapse)
    generator, discriminator = networks()
    with pytest.warns(UserWarning, match=f"collapsed.* adversarial step {step} of"):
        outcome = training.train_generator(
            generator, lambda s: made.batch(s, 8), steps=40, objective=objective, discriminator=discriminator,
            adversarial_share=0.5, progress=False,
        )  # fmt: skip
    assert outcome.failure.endswith(f"step {step} of {len(outcome.phases) and 20 or 40}.") and not generator.training
    assert all(torch.isfinite(tensor).all() for tensor in generator.state_dict().values())
    with torch.no_grad():
        drawn = generator(torch.randn(4, 12), made.logits[0, :4])
    assert drawn.isfinite().all()


def test_a_training_that_never_was_good_is_an_error(classifier, images, monkeypatch):
    def collapse(drawn, truth, like=False):
        raise training.Collapsed("The adversarial training collapsed: drawings are alike.")

    monkeypatch.setattr(training, "check_samples", collapse)
    generator, discriminator = networks()
    made = pairs(classifier, images)
    with pytest.raises(training.Collapsed):
        training.train_generator(generator, lambda s: made.batch(s, 8), steps=4, objective="adversarial",
                            discriminator=discriminator, progress=False)  # fmt: skip


def test_settings_that_make_no_sense_are_refused(classifier, images):
    generator, _ = networks()
    batches = pairs(classifier, images[:8]).batch
    with pytest.raises(ValueError, match="adversarial, hybrid, regression"):
        training.train_generator(generator, batches, steps=1, objective="gan")
    with pytest.raises(ValueError, match="needs a discriminator"):
        training.train_generator(generator, batches, steps=1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        training.train_generator(generator, batches, steps=1, objective="regression", adversarial_share=1)
    with pytest.raises(ValueError, match="views must be a whole number of at least 1, not 0"):
        pairs(classifier, images[:8], views=0)
