"""Surgery on logits and on images, with inverters whose response is known: one loses nothing, one sees only colour."""

import math

import pytest
import torch
import torch.nn.functional as F

import invkit
from invkit import metrics
from invkit.metrics import distance
from study import probes
from study.chapters import image_surgery, logit_surgery
from study.chapters.image_surgery import SURGERIES, Surgery
from study.chapters.logit_surgery import Subject, alter
from study.reconstructions import represent_all
from study.surgery import reconstruct_each, slopes, swings

SIZE = 32


class Everything:
    """Loses nothing: the logits are the pixels."""

    size, noise_dim = SIZE, 1

    def represent(self, images):
        return images.flatten(1)

    def invert(self, logits, noise=None):
        return logits.unflatten(1, (3, SIZE, SIZE))

    def reconstruct(self, images, noise=None):
        return self.invert(self.represent(images), noise)


class MeanColour(Everything):
    """Tells nothing but the mean colour."""

    def represent(self, images):
        return images.mean((2, 3))

    def invert(self, logits, noise=None):
        return logits[:, :, None, None].expand(-1, -1, SIZE, SIZE)


@pytest.fixture(scope="module")
def images():
    """Soft bars away from the centre, in colours of their own."""
    x = torch.linspace(-1, 1, SIZE)
    centre = 0.1 + 0.3 * torch.rand(12, 2, generator=torch.Generator().manual_seed(0))
    radius = (x - centre[:, :1])[:, None, :] ** 2 + 4 * (x - centre[:, 1:])[:, :, None] ** 2
    blob = torch.exp(-radius / 0.15)[:, None]
    ground = torch.linspace(0, 0.3, 36).view(12, 3, 1, 1)
    ink = torch.stack([torch.tensor([0.9, 0.6, 0.2]).roll(k) for k in range(12)])[:, :, None, None]
    return torch.lerp(ground, ink, blob)


def test_a_rise_to_both_sides_is_found_where_a_slope_finds_none():
    strengths, generator = [-2.0, 0.0, 1.0], torch.Generator().manual_seed(0)
    both = torch.tensor([[4.0], [0.0], [1.0]]).expand(3, 6)
    assert swings(strengths, both).tolist() == [2.0] * 6  # towards -2, by 4
    assert swings(strengths, -both).tolist() == [2.0] * 6  # a fall counts as much
    assert swings([0.0, 2.0], both[:2]).tolist() == [2.0] * 6
    nothing = torch.randn(3, 20_000, generator=generator)
    assert abs(swings(strengths, nothing).mean()) < 0.02  # though the larger of two means is rarely 0
    for wrong in ([1.0, 0.0, 2.0], [1.0, 2.0, 3.0], [0.0, 1.0]):
        with pytest.raises(ValueError, match="rising order: 0, and"):
            swings(wrong, both)


def test_slopes_of_straight_lines():
    values = torch.tensor([0.0, 1.0, 3.0])[:, None] * torch.tensor([2.0, -1.0]) + 5
    assert slopes([0, 1, 3], values).tolist() == pytest.approx([2, -1])
    with pytest.raises(ValueError, match="3 strengths"):
        slopes([0, 1], values)
    with pytest.raises(ValueError, match="at least two"):
        slopes([1, 1, 1], values)


def test_measures_are_those_of_the_probes_whatever_the_batch(images):
    inverter = Everything()
    z = represent_all(inverter, images, batch=5)
    found = reconstruct_each(inverter, [z, probes.scale(z, 0.5)], batch=7)
    classes = images.mean((2, 3)).argmax(1)
    values = logit_surgery.all_measures(found, images, classes, {"colour": lambda x: x.mean((2, 3))})
    assert all(value.shape == (2, 12) for value in values.values())
    assert torch.allclose(values["contrast"][1], probes.contrast(images) / 2, atol=1e-6)
    assert torch.allclose(values["brightness"][1], probes.brightness(images) / 2, atol=1e-6)
    assert torch.allclose(values["sharpness"][1], probes.sharpness(images), atol=1e-4)
    assert torch.allclose(values["distance"][1], images.square().mean((1, 2, 3)).sqrt() / 2, atol=1e-6)
    assert values["distance"][0].max() == 0 and values["colour"].min() == 1
    others = logit_surgery.all_measures(found, images, (classes + 1) % 3, {"colour": lambda x: x.mean((2, 3))})
    assert others["colour"].max() == 0


def test_a_subject_is_inverted_and_watched_at_every_strength(images):
    class Colours(MeanColour):
        def represent(self, images):
            return 10 * super().represent(images)

        def invert(self, logits, noise=None):
            return super().invert(logits / 10)

    subject = logit_surgery.Subject.of(Colours(), images, judge=None)
    spread = 10 * images.mean((2, 3)).std(0)
    assert torch.allclose(subject.std, spread, atol=1e-5)
    assert subject.unit == pytest.approx(spread.square().mean().sqrt().item(), rel=1e-5)
    measured = subject.under(lambda s, x: probes.shift(s.logits, x * s.unit), [0.0, 0.1])
    assert measured.images.shape == (2, 12, 3, SIZE, SIZE)
    assert slopes([0.0, 0.1], measured.measures["brightness"]).mean() == pytest.approx(subject.unit / 10)
    assert measured.measures["itself"].min() == 1  # a shift changes no class
    turned = subject.under(lambda s, x: s.logits.roll(1, 1), [0.0])
    assert turned.measures["itself"].max() == 0


def test_a_double_exposure_is_told_from_a_new_image(images):
    ends = images, images.flip(0)
    assert logit_surgery.ghosting((ends[0] + ends[1]) / 2, ends).tolist() == pytest.approx([1] * 12, abs=1e-4)
    assert logit_surgery.ghosting(ends[1], ends).tolist() == pytest.approx([0] * 12, abs=1e-4)


def test_a_loop_that_forgets_is_seen_to(images):
    mean = images.mean(0, keepdim=True)
    rounds = [mean + (images - mean) / 2**k for k in range(4)]
    path = logit_surgery.wander(rounds)
    spread = distance(images, mean)
    for k in (1, 2, 3):
        assert torch.allclose(path["spread"][k - 1], spread / 2**k, atol=1e-5)
        assert torch.allclose(path["step"][k - 1], spread / 2**k, atol=1e-5)
        assert torch.allclose(path["distance"][k - 1], spread * (1 - 0.5**k), atol=1e-5)
    with pytest.raises(ValueError, match="one shape"):
        logit_surgery.wander([images, images[..., :8]])


def test_effective_number_of_classes():
    assert logit_surgery.effective_number(torch.tensor([3, 3, 3])) == pytest.approx(1)
    assert logit_surgery.effective_number(torch.tensor([0, 1, 2, 5])) == pytest.approx(4)
    assert 1 < logit_surgery.effective_number(torch.tensor([0] * 9 + [1])) < 2


# ---- on images


@pytest.mark.parametrize("name", SURGERIES)
def test_an_inverter_that_loses_nothing_follows_by_the_amount_applied(images, name):
    surgery = SURGERIES[name]
    response = image_surgery.respond(Everything(), images, surgery)
    step = surgery.candidates[1] - surgery.candidates[0]
    assert (response.amounts - torch.tensor(surgery.amounts)[:, None]).abs().max() < step
    assert response.slopes(surgery).mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(response.slopes(surgery), image_surgery.ceiling(images, surgery))
    assert response.follow.min() > 0.999


def test_no_change_is_found_where_none_can_be_seen(images):
    grey = torch.full_like(images, 0.5)
    for name in ("rotate", "translate", "blur"):
        assert image_surgery.matched_amounts(grey, grey[None], SURGERIES[name]).abs().max() < 1e-4
        step = SURGERIES[name].candidates.diff()[0]
        assert image_surgery.matched_amounts(images, images[None], SURGERIES[name]).abs().max() < 0.05 * step


def test_an_inverter_of_colour_alone_does_not_turn_or_move(images):
    for name in ("rotate", "translate"):
        surgery = SURGERIES[name]
        response = image_surgery.respond(MeanColour(), images, surgery)
        assert response.slopes(surgery).abs().max() < 0.05
    blend = image_surgery.respond(MeanColour(), images, SURGERIES["blend"])
    assert blend.slopes(SURGERIES["blend"]).mean().item() == pytest.approx(1, abs=0.05)


def test_follow_is_minus_one_where_the_change_is_undone(images):
    class Undoing(Everything):
        def invert(self, logits, noise=None):
            return images

    brighten = Surgery(lambda x, a: x * (1 - a), (0.2, 0.4), (0, 1, 21), "")
    response = image_surgery.respond(Undoing(), images, brighten)
    assert response.follow.max() < -0.999 and response.amounts.abs().max() < 1e-3


@pytest.mark.parametrize("kind", ["unseen symbols", "photos", "dead leaves", "flat colours"])
def test_outsiders_are_images_drawn_by_seed(kind):
    draw = image_surgery.OUTSIDERS[kind]
    drawn = draw(8, 1, SIZE)
    assert drawn.shape == (8, 3, SIZE, SIZE) and 0 <= drawn.min() and drawn.max() <= 1
    assert torch.equal(drawn, draw(8, 1, SIZE)) and not torch.equal(drawn, draw(8, 2, SIZE))


def test_symbols_are_drawn_all_different_and_too_many_photos_refused():
    assert probes.contrast(image_surgery.symbols(100, seed=1)).min() > 0.01
    with pytest.raises(ValueError, match="quarters"):
        image_surgery.photo_parts(10_000)


def test_what_is_told_by_colour_alone(images):
    everything, colour = (image_surgery.told(inverter, images) for inverter in (Everything(), MeanColour()))
    assert everything.distance.max() == 0 and everything.found.all() and everything.chance.min() > 0
    assert torch.allclose(colour.colour, torch.ones(12), atol=1e-4)
    assert torch.allclose(colour.distance, probes.contrast(images), atol=1e-4)
    assert image_surgery.told(MeanColour(), images.mean(0).expand_as(images)).colour is None
    swapped = colour.images.roll(1, 0)
    assert metrics.psnr(swapped, images).mean() < metrics.psnr(colour.images, images).mean()
    assert math.isclose(F.softmax(images.mean((2, 3)), 1).amax(1)[3], colour.confidence[3], rel_tol=1e-5)


def test_a_control_finds_nothing_where_nothing_can_be_found():
    """Random directions are as long as a shift, a double exposure is one, and other noise is other noise."""
    images = invkit.data.load("glyphs", "test", n=12).images
    subjects = {"standard": Subject.of(invkit.load_inverter("ffi-glyphs-standard"), images)}
    shift = alter(subjects, lambda s, x: probes.shift(s.logits, x), [-1.0, 0.0, 1.0])
    scale = alter(subjects, lambda s, x: probes.scale(s.logits, x), [0.5, 1.0, 2.0])
    noise = alter(subjects, lambda s, x: probes.perturb(s.logits, x, s.std, 0), [0.0, 0.5])
    series = {"shift": shift, "scale": scale, "noise": noise}
    found = logit_surgery.measured_controls(subjects["standard"], subjects["standard"], series, rounds=2, seed=0)
    assert set(found) == set(logit_surgery.CONTROLS)
    assert found["shift_contrast_random"].mean() > 0.02
    logits = subjects["standard"].logits
    moved = logit_surgery.at_random(logits, 0.7, 1) - logits
    assert torch.allclose(moved.square().mean(1).sqrt(), torch.tensor(0.7))
    assert found["ghost_control"].mean() > 0.5
    assert found["noise_distance_again"].abs().max() > 0  # other random numbers indeed


class Brightened(Everything):
    """An image's brightness is its first logit, and a tenth of the first number of the noise."""

    def sample_noise(self, n: int, seed: int = 0):
        return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))

    def invert(self, logits, noise=None):
        level = logits[:, 0] + (0 if noise is None else noise[:, 0] / 10)
        return level[:, None, None, None].expand(-1, 3, 8, 8)


def test_noise_of_each_image_moves_no_mean_and_one_noise_for_all_does():
    n = 400
    subject = Subject(Brightened(), torch.rand(n, 3, 8, 8), torch.full((n, 3), 0.5), {})
    shift = alter({"": subject}, lambda s, x: probes.shift(s.logits, 0.1 * x), [-1.0, 0.0, 1.0])
    scale = alter({"": subject}, lambda s, x: probes.scale(s.logits, x), [0.5, 1.0, 2.0])
    found = logit_surgery.changes_of_look(subject, shift, scale, seed=0)
    assert found["shift_brightness_drawn"].numpy() == pytest.approx(0.1, abs=1e-5)  # the noise is that of all strengths
    assert found["scale_brightness_drawn"].mean() > 0.2
    assert found["shift_brightness_noise"].std() > 0.1 and found["shift_brightness_noise"].mean().abs() < 0.02
    assert found["shift_brightness_shared"].std() < 1e-5 and found["shift_brightness_shared"].mean() > 0.02
    assert subject.under_noise(1).noise.shape == (n, 2) and subject.noise is None
