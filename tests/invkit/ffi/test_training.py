"""Feedforward inversion: losses by hand, conditions, training pairs, two players, collapse, bad input."""

import math

import pytest
import torch
from torch import nn

import invkit
from invkit.data.images import Data
from invkit.dci import chain
from invkit.ffi import invert, losses, training
from invkit.ffi.biggan import LogitGenerator, ProjectionDiscriminator
from invkit.ffi.pairs import condition, content_hash, logits_of, pairs
from invkit.network.classifiers import Classifier
from recipes import table

SMALL = {"generator": {"channels": (16, 16, 8), "noise_dim": 12, "hidden": 16, "shared_dim": 16, "coarse": 4}}
SMALL |= {"discriminator": {"channels": (8, 16)}, "progress": False}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    """Its ten logits are random sums of the image's 4x4 thumbnail: they tell, so they can be inverted."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))
    return Classifier(model, "thumbnails", size=16)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """256 images of one colour each, lit from the left or the right."""
    g = torch.Generator().manual_seed(1)
    colour = torch.rand(256, 3, 1, 1, generator=g)
    light = torch.linspace(0.5, 1, 16).expand(256, 1, 16, 16)
    return colour * torch.where(torch.rand(256, 1, 1, 1, generator=g) < 0.5, light, light.flip(-1))


# ---- losses ----------------------------------------------------------------------------------------------------------


def test_hinge_losses_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0, 2.0])
    # E[max(-1, D(fake))] = (-1 + 0 + 2) / 3, E[min(1, D(real))] = (1 + 0.5 - 1) / 3
    assert losses.discriminator_loss(real, fake).item() == pytest.approx(1 / 3 - 0.5 / 3)
    assert losses.generator_loss(fake).item() == pytest.approx(1 / 3)
    beyond = losses.discriminator_loss(torch.tensor([5.0]), torch.tensor([-5.0]))
    assert beyond.item() == -2  # nothing more to gain


def test_energy_score_by_hand_and_least_for_the_right_spread():
    x, a, b = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.3), torch.full((1, 3, 2, 2), -0.5)
    assert losses.energy_score(a, b, x).item() == pytest.approx((0.3 + 0.5 - 0.8) / 2, abs=1e-3)
    assert losses.energy_score(a, a, x).item() == pytest.approx(0.3, abs=1e-3)
    g = torch.Generator().manual_seed(0)
    x, u, v = torch.randn(3, 4000, 3, 1, 1, generator=g).unbind(0)
    scores = [losses.energy_score(s * u, s * v, x).item() for s in (0.0, 0.5, 1.0, 1.6)]
    assert min(scores) == scores[2]  # drawings as spread as the images are


def test_energy_score_of_squares_sees_past_the_pixels_noise():
    g = torch.Generator().manual_seed(0)
    x, a, b = (torch.randn(1, 3, 8, 8, generator=g) for _ in range(3))  # alike in nothing but the mean
    square = lambda image: torch.nn.functional.avg_pool2d(image, 4)  # noqa: E731
    both = losses.energy_score(a, b, x, squares=(1, 4))
    parts = losses.energy_score(a, b, x), losses.energy_score(*map(square, (a, b, x)))
    assert both.item() == pytest.approx(sum(p.item() for p in parts) / 2, abs=1e-4)
    offset = losses.energy_score(a + 1, b + 1, x) - losses.energy_score(
        a, b, x
    )  # as much brighter as the pixels are noisy
    assert losses.energy_score(a + 1, b + 1, x, (8,)) - losses.energy_score(a, b, x, (8,)) > 1.5 * offset


def test_identification_by_hand_and_by_what_it_asks_for():
    x = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mean = x.mean(0, keepdim=True)
    blind = losses.identification(mean + torch.zeros_like(x), x)
    assert blind.item() == pytest.approx(math.log(8), abs=1e-4)  # no reading is like any image more than another
    pale = mean + 0.1 * (x - mean)  # the contrast does not matter
    assert losses.identification(pale, x).item() == pytest.approx(losses.identification(x, x).item(), abs=1e-4)
    assert losses.identification(x, x) < 0.01 < math.log(8) < losses.identification(x.roll(1, 0), x)
    likeness = torch.nn.functional.cosine_similarity
    a, b = x[:2], x[:2].flip(0)  # of two images, less their mean, one is the other's negative: likeness is 1 and -1
    centred = (a - a.mean(0)).flatten(1)
    assert likeness(centred[:1], centred[1:]).item() == pytest.approx(-1, abs=1e-5)
    assert losses.identification(b, a, temperature=1.0).item() == pytest.approx(math.log(1 + math.e**2), abs=1e-4)


def test_identification_lets_more_be_found(classifier, images):
    z, seen = classifier.logits(images).detach(), (255 * images).byte()

    def found(identify):
        torch.manual_seed(0)
        g = LogitGenerator(16, z.shape[1], channels=(8, 8, 8), coarse=4, coarse_hidden=16)
        g.whitening.fit(z)
        training.fit_coarse_images(g, seen, z, 60, identify=identify)
        small = torch.nn.functional.adaptive_avg_pool2d(seen.float() / 255, 4)
        with torch.no_grad():
            read = g.coarse(g.whitening(z), z.softmax(1))
        return losses.identification(read, small).item()

    assert found(0.3) < found(0.0)


def test_identification_beside_an_adversary_lets_more_be_found(classifier, images):
    z = classifier.logits(images).detach()

    def found(weight):
        torch.manual_seed(0)
        g, d = (network(16, z.shape[1], channels=(8, 8, 8)) for network in (LogitGenerator, ProjectionDiscriminator))
        g.whitening.fit(z)
        training.train_generator(
            g, lambda step: (images, z), steps=40, discriminator=d, adversarial_share=0.9, adversarial_lr=2e-3,
            augment=False, progress=False,
            weights=training.GeneratorLossWeights(pixel=1, adversary=0.01, features=0, identify_late=weight),
        )  # fmt: skip
        with torch.no_grad():
            return losses.identification(g(torch.zeros(len(z), g.noise_dim), z), images).item()

    assert found(1.0) < found(0.0)


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


def test_augmented_images_are_moved_cut_and_differentiable():
    torch.manual_seed(0)
    images = torch.rand(8, 3, 16, 16, requires_grad=True)
    changed = losses.diff_augment(images)
    assert changed.shape == images.shape
    changed.sum().backward()
    assert set(images.grad.unique().tolist()) == {0.0, 1.0}  # every pixel is somewhere, or nowhere
    assert 0.5 < images.grad.mean() < 1
    inside = torch.isin(changed, torch.cat([images.flatten(), torch.zeros(1)]))
    assert inside.all() and not torch.equal(changed, images)


def test_feature_error_is_relative():
    images = torch.rand(2, 3, 8, 8)
    assert losses.feature_error(lambda x: 10 * x, 1.5 * images, images).item() == pytest.approx(0.5, abs=1e-5)


# ---- conditions and pairs --------------------------------------------------------------------------------------------


def test_conditions():
    z = torch.tensor([[1.0, 3.0, 2.0, -1.0]])
    assert torch.equal(condition(z), z)
    assert torch.equal(condition(z, "one-hot"), torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    torch.testing.assert_close(condition(z, "probabilities"), z.exp() / z.exp().sum())
    assert torch.equal(condition(z, "top-2"), torch.tensor([[2.0, 3.0, 2.0, 2.0]]))
    assert torch.equal(condition(z, "top-4"), z)
    for kind in ("top-5", "top-0", "top", "softmax"):
        with pytest.raises(ValueError, match="K from 1 to 4"):
            condition(z, kind)


def test_pairs_are_images_with_their_own_logits(classifier, images, tmp_path):
    made = pairs(classifier, images[:20], views=3, seed=1, folder=tmp_path)
    assert made.images.shape == (3, 20, 3, 16, 16) and made.images.dtype == torch.uint8
    assert torch.equal(made.images[0], (images[:20] * 255).round().byte())  # the first view is the image
    assert not torch.equal(made.images[1], made.images[2])
    seen = made.images.flatten(0, 1).float() / 255
    torch.testing.assert_close(made.logits.flatten(0, 1), classifier.logits(seen), atol=1e-5, rtol=1e-5)
    pixels, z = made.batch(3, 8)
    torch.testing.assert_close(classifier.logits(pixels), z, atol=1e-5, rtol=1e-5)
    again, _ = made.batch(3, 8)
    assert torch.equal(pixels, again)


def test_every_image_comes_once_before_any_comes_again(classifier, images):
    made = pairs(classifier, images[:20])
    first = torch.cat([made.batch(step, 8)[1] for step in range(5)])  # 40 of 20 images: two rounds
    for part in (first[:20], first[20:]):
        assert len(part.unique(dim=0)) == 20
    assert not torch.equal(first[:20], first[20:])


def test_logits_are_computed_once_and_again_when_anything_changes(classifier, images, tmp_path, monkeypatch):
    asked = []
    logits = Classifier.logits
    monkeypatch.setattr(Classifier, "logits", lambda self, x: asked.append(len(x)) or logits(self, x))
    pairs(classifier, images[:8], folder=tmp_path)
    pairs(classifier, images[:8], folder=tmp_path)
    assert sum(asked) == 8
    pairs(classifier, images[1:9], folder=tmp_path)
    changed = Classifier(nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10)), "thumbnails", size=16)
    pairs(changed, images[:8], folder=tmp_path)
    assert len(list(tmp_path.glob("logits-*.safetensors"))) == 3
    assert content_hash([torch.ones(2)]) != content_hash([torch.ones(2, 1)])


def test_only_showing_resizes(classifier, images):
    assert torch.equal(logits_of(classifier, images[:2]), classifier.logits(images[:2]))
    assert logits_of(classifier, torch.rand(2, 3, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        ([1, 2], TypeError, "list"),
        (torch.rand(4, 1, 16, 16), TypeError, r"\(N, 3, S, S\)"),
        (torch.rand(0, 3, 16, 16), TypeError, "at least one"),
        (torch.rand(4, 3, 16, 12), ValueError, "squares"),
        (torch.zeros(4, 3, 16, 16, dtype=torch.int64), TypeError, "uint8"),
        (torch.full((4, 3, 16, 16), 2.0), ValueError, r"\[0, 1\]"),
        (torch.full((4, 3, 16, 16), math.nan), ValueError, "NaN"),
    ],
)
def test_what_are_no_images_gets_a_sentence(classifier, wrong, error, words):
    with pytest.raises(error, match=words):
        invert.train_inverter(classifier, wrong, steps=1)


def test_a_classifier_with_broken_logits_is_refused(images):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10))
    nn.init.constant_(model[2].bias, math.inf)
    with pytest.raises(ValueError, match="not finite"):
        pairs(Classifier(model, "broken", size=16), images[:4])


# ---- training --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inverter(classifier, images):
    data = Data(images[:192], torch.zeros(192, dtype=torch.int64), tuple(map(str, range(192))))
    return invert.train_inverter(classifier, data, steps=60, batch=16, adversarial_share=0.2, seed=1, **SMALL)


def test_it_reads_unseen_images_better_than_their_mean(inverter, images):
    unseen = images[192:]
    mean = images[:192].mean(0, keepdim=True).expand_as(unseen)
    read, floor = (invkit.metrics.psnr(x, unseen).mean() for x in (inverter.reconstruct(unseen), mean))
    assert read > floor + 3
    assert inverter.card["failure"] is None and inverter.card["objective"] == "hybrid"
    assert inverter.card["steps"] == 60 and inverter.card["images"] == 192


@pytest.mark.parametrize(("objective", "kind"), [("adversarial", "probabilities"), ("regression", "one-hot")])
def test_the_other_objectives_and_kinds_train(classifier, images, objective, kind):
    made = invert.train_inverter(classifier, images[:32], steps=3, batch=8, objective=objective, kind=kind, **SMALL)
    assert made.card["objective"] == objective and made.card["kind"] == kind
    z = made.represent(images[:3])
    torch.testing.assert_close(made.invert(z), made.invert(z + 1))  # what neither kind tells


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
    with pytest.raises(ValueError, match="views=0"):
        pairs(classifier, images[:8], views=0)


# ---- recipes ---------------------------------------------------------------------------------------------------------


def test_a_recipe_for_every_inverter():
    kinds = {"standard", "robust", "early", "plain", "onehot", "regression"}
    kinds |= {"independent-standard", "independent-robust"}
    photos = {"ffi-tiny-standard", "ffi-tiny-robust", "ffi-tiny-onehot", "ffi-lite0-tiny", "ffi-lite0-faces"}
    assert {f"ffi-glyphs-{kind}" for kind in kinds} | photos <= set(table.names())
