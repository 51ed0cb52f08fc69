import math
from pathlib import Path

import matplotlib
import pytest
import torch
from matplotlib.ft2font import FT2Font

from invkit import data
from invkit.data import glyphs

RING, EQUALS = glyphs.CHARACTERS.index("O"), glyphs.CHARACTERS.index("=")


def masks(drawn):
    """The share of ink in every pixel (N, H, W), measured from the image and its two colours."""
    ink, ground = (drawn.factors[name][:, :, None, None] for name in ("ink", "ground"))
    way = ink - ground
    return ((drawn.images - ground) * way).sum(1) / (way * way).sum(1)


def moments(mask):
    """Centroid (x, y) in shares of the side from the centre, y downwards, and the angle of the longer axis, degrees."""
    side = mask.shape[-1]
    line = (torch.arange(side) + 0.5) / side - 0.5
    total = mask.sum((1, 2))
    x, y = (mask.sum(1) * line).sum(1) / total, (mask.sum(2) * line).sum(1) / total
    dx, dy = line - x[:, None], line - y[:, None]
    xx, yy = (mask.sum(1) * dx**2).sum(1), (mask.sum(2) * dy**2).sum(1)
    xy = torch.einsum("nij,ni,nj->n", mask, dy, dx)
    return x, y, torch.rad2deg(0.5 * torch.atan2(-2 * xy, xx - yy))


def luma(rgb):
    return rgb @ torch.tensor(glyphs.LUMA)


def test_a_hundred_characters_each_in_every_font():
    assert len(set(glyphs.CHARACTERS)) == len(glyphs.CHARACTERS) == 100
    for name in {name for family in glyphs.FAMILIES.values() for pair in family for name in pair}:
        known = FT2Font(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf")).get_charmap()
        assert not [character for character in glyphs.CHARACTERS if ord(character) not in known], name


def test_no_two_characters_look_alike_in_one_font():
    shape = {"x": 0.0, "y": 0.0, "rotation": 0.0, "glyph_size": 0.9, "label": torch.arange(100)}
    for font in range(len(glyphs.FAMILIES)):
        seen = masks(glyphs.draw(100, font=font, slant=0, weight=0, stroke=1, **shape)).flatten(1)
        alike = torch.corrcoef(seen) - torch.eye(100)
        assert alike.max() < 0.93, [glyphs.CHARACTERS[i] for i in divmod(int(alike.argmax()), 100)]


def test_the_same_seed_gives_the_same_images_and_factors():
    one, same, short, other = (glyphs.draw(n, seed=seed) for n, seed in ((20, 3), (20, 3), (7, 3), (20, 4)))
    assert torch.equal(one.images, same.images) and torch.equal(one.labels, same.labels)
    assert all(torch.equal(one.factors[name], same.factors[name]) for name in one.factors)
    assert torch.equal(short.images, one.images[:7]) and torch.equal(short.factors["ink"], one.factors["ink"][:7])
    assert not torch.equal(one.labels, other.labels) and not torch.equal(one.factors["x"], other.factors["x"])


def test_factors_have_the_ranges_they_claim():
    drawn = glyphs.draw(2000)
    f = drawn.factors
    assert drawn.images.shape == (2000, 3, 32, 32) and drawn.labels.unique().numel() == 100
    for name, (low, high) in {"x": glyphs.X, "y": glyphs.Y, "size": glyphs.SIZE, "rotation": glyphs.ROTATION}.items():
        margin = 0.02 * (high - low)
        assert low <= f[name].min() < low + margin and high - margin < f[name].max() <= high, name
    contrast = (luma(f["ink"]) - luma(f["ground"])).abs()
    assert 0.099 < contrast.min() < 0.11 and contrast.max() < 0.701
    assert (contrast < 0.2).float().mean() > 0.2  # low contrasts are common
    assert [f[name].unique().tolist() for name in ("font", "slant", "weight", "stroke")] == [
        [0, 1, 2], [0, 1], [0, 1], [0, 1, 2],
    ]  # fmt: skip


def test_the_image_shows_position_size_and_rotation():
    x, y = torch.tensor([-0.15, 0.0, 0.15, 0.1]), torch.tensor([0.1, 0.0, 0.15, -0.15])
    seen_x, seen_y, _ = moments(masks(glyphs.draw(4, label=RING, x=x, y=y, glyph_size=0.5)))
    assert (seen_x - x).abs().max() < 0.01 and (seen_y - y).abs().max() < 0.01

    still = {"label": RING, "x": 0.0, "y": 0.0, "rotation": 0.0}
    small, large = (masks(glyphs.draw(8, glyph_size=s, size=64, **still)).sum((1, 2)) for s in (0.4, 0.8))
    assert torch.allclose(large / small, torch.tensor(4.0), rtol=0.05)

    angles = torch.tensor([-25.0, -10.0, 0.0, 25.0])
    seen = moments(masks(glyphs.draw(4, label=EQUALS, x=0.0, y=0.0, rotation=angles, slant=0, size=64)))[2]
    assert (seen - angles).abs().max() < 2


def test_the_image_shows_ink_and_ground():
    drawn = glyphs.draw(16, label=EQUALS, x=0.0, y=0.0, rotation=0.0, glyph_size=0.8, weight=1, size=64)
    mask = masks(drawn).flatten(1)
    pixels, row = drawn.images.flatten(2), torch.arange(16)
    assert torch.allclose(pixels[row, :, mask.argmax(1)], drawn.factors["ink"], atol=0.01)
    assert torch.allclose(drawn.images[:, :, 0, 0], drawn.factors["ground"])
    assert torch.equal(glyphs.draw(2, ink=torch.ones(3), ground=0.0).images[:, :, 0, 0], torch.zeros(2, 3))


def test_weight_and_stroke_thicken_and_other_fonts_look_different():
    def ink(**fixed):
        still = {
            "x": 0.0,
            "y": 0.0,
            "rotation": 0.0,
            "glyph_size": 0.8,
            "font": 0,
            "slant": 0,
            "weight": 0,
            "stroke": 0,
        }
        return masks(glyphs.draw(100, **{**still, "label": torch.arange(100), **fixed}))

    plain = ink()
    for fixed in ({"weight": 1}, {"stroke": 1}):
        assert (ink(**fixed).sum((1, 2)) > plain.sum((1, 2))).float().mean() > 0.9
    assert (ink(stroke=2).sum((1, 2)) > ink(stroke=1).sum((1, 2))).float().mean() > 0.9
    for fixed in ({"slant": 1}, {"font": 1}, {"font": 3}):
        assert ((ink(**fixed) - plain).abs().mean((1, 2)) > 0.01).float().mean() > 0.75


def test_only_in_the_informative_world_does_the_class_say_the_hue():
    for world, low, high in (("informative", 0.75, 0.9), ("independent", -0.1, 0.1)):
        drawn = glyphs.draw(3000, world=world)
        for name, turn in (("ink", 0), ("ground", 1 / 3)):
            away = glyphs.hue(drawn.factors[name]) - glyphs.preferred_hue(drawn.labels) - turn
            assert low < torch.cos(2 * math.pi * away).mean() < high
    informative, independent = (glyphs.draw(50, world=world) for world in glyphs.WORLDS)
    assert torch.equal(informative.labels, independent.labels)
    assert all(torch.equal(informative.factors[k], independent.factors[k]) for k in ("x", "size", "rotation", "font"))


def test_hue_knows_the_colours():
    colours = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [0.6, 0.4, 0.4]])
    assert torch.allclose(glyphs.hue(colours), torch.tensor([0, 1, 2, 3, 4, 5, 0]) / 6)


def test_unseen_fonts_are_unseen():
    assert not set(glyphs.FONTS["train"]) & set(glyphs.FONTS["test"])
    seen, unseen = (glyphs.draw(300, fonts=fonts).factors["font"].unique().tolist() for fonts in ("train", "test"))
    assert unseen == [3] and seen == [0, 1, 2]


def test_a_factor_held_leaves_the_others_alone():
    free, held = glyphs.draw(10), glyphs.draw(10, x=0.1, label=5, ink=torch.tensor([1.0, 0.0, 0.0]))
    assert held.factors["x"].tolist() == pytest.approx([0.1] * 10) and held.labels.tolist() == [5] * 10
    assert held.factors["ink"].tolist() == [[1, 0, 0]] * 10
    assert all(torch.equal(free.factors[k], held.factors[k]) for k in free.factors if k not in ("x", "ink"))


def test_splits_share_no_image():
    names = ("train", "inverter", "validation", "test", "test-fonts")
    drawn = [data.load("glyphs", split=split, n=100) for split in names] + [glyphs.draw(100)]
    places = torch.stack([torch.stack([d.factors["x"], d.factors["y"], d.factors["size"]], 1) for d in drawn])
    nearest = torch.cdist(places.flatten(0, 1), places.flatten(0, 1)).fill_diagonal_(1).min()
    assert nearest > 1e-5
    assert set(drawn[4].factors["font"].tolist()) == {3}


def test_load_glyphs():
    assert data.load("glyphs").images.shape == (1000, 3, 32, 32)
    independent = data.load("glyphs:independent", n=5, size=64)
    assert independent.images.shape == (5, 3, 64, 64)
    assert torch.equal(data.load("glyphs", n=5).labels, independent.labels)
    assert not torch.equal(data.load("glyphs", n=5).factors["ink"], independent.factors["ink"])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n": 0}, "n must be a whole number"),
        ({"size": 4}, "size must be a whole number of at least 8"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"world": "grey"}, "no world 'grey'"),
        ({"fonts": "cm"}, "no fonts 'cm'"),
        ({"colour": 1.0}, "no factor 'colour'"),
        ({"label": 100}, r"label must lie in \[0, 99\]"),
        ({"label": 0.5}, "label must be a whole number"),
        ({"x": float("nan")}, "x must lie in"),
        ({"x": torch.zeros(3)}, "x must be one value or n of them"),
        ({"ink": torch.tensor([0.0, 2.0, 0.0])}, "ink must lie in"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        glyphs.draw(**{"n": 4, **arguments})
