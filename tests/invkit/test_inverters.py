"""Inverters as their users meet them: save, load, represent, invert, reconstruct."""

import inspect
import json
import sys

import pytest
import torch
from torch import nn
from torchvision.transforms import functional as TF

import invkit
from invkit import dci, ffi, store
from invkit.dci import synthetic
from invkit.dci.training import Schedule
from invkit.inverters import Inverter
from invkit.network.classifiers import Classifier
from invkit.network.generators import load_generator

QUICK = Schedule(divide=1, synchronise=1)
shipped = pytest.mark.skipif("dci-lite0" not in store.shipped(), reason="dci-lite0 is not in weights/: train it first")


@pytest.fixture(scope="module")
def inverter():
    classifier = invkit.load_classifier("lite0", size=64)
    pool = synthetic.draw_pool(16, 64)
    return dci.invert_classifier(
        classifier, pool, depth=4, schedule=QUICK, crops=lambda depth: (2, 64), progress=False, seed=3
    )


def test_represent_is_the_only_place_that_resizes(inverter):
    assert inverter.depths == [1, 2, 3, 4]
    photo = torch.rand(2, 3, 80, 100)
    representation = inverter.represent(photo, depth=3)
    assert tuple(representation.shape[1:]) == tuple(inverter.classifier.blocks[2].shape)
    images = inverter.invert(representation, depth=3)
    assert images.shape == (2, 3, 64, 64) and 0 <= images.min() and images.max() <= 1
    torch.testing.assert_close(inverter.reconstruct(photo, depth=3), images)
    native = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(inverter.represent(native, 2), inverter.classifier.features(native, 2))


def test_inverting_is_deterministic_and_leaves_global_randomness_alone(inverter):
    representation = inverter.represent(torch.rand(1, 3, 64, 64))
    state = torch.get_rng_state()
    first = inverter.invert(representation)
    assert torch.equal(first, inverter.invert(representation, depth=4, noise=None))
    assert torch.equal(state, torch.get_rng_state())


def test_gradients_flow_to_the_image_but_not_into_the_weights(inverter):
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    inverter.reconstruct(image, depth=1).sum().backward()
    assert image.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in inverter.chain.parameters())


def test_feedback_of_the_card_is_used_and_can_be_left_out(inverter):
    image = torch.rand(1, 3, 64, 64)
    plain = inverter.reconstruct(image, depth=1)
    assert torch.equal(plain, inverter.reconstruct(image, depth=1, feedback=False))
    inverter.card["feedback"] = {"1": [2, 0.5]}
    fed_back = inverter.reconstruct(image, depth=1)
    assert torch.equal(plain, inverter.reconstruct(image, depth=1, feedback=False))
    assert not torch.equal(plain, fed_back) and 0 <= fed_back.min() and fed_back.max() <= 1
    dci.add_feedback(inverter, synthetic.dead_leaves(2, 64, seed=9), depths=[1])
    steps, rate = inverter.card["feedback"].pop("1")
    assert 0 <= steps <= 4 and 0 < rate <= 1


def test_wrong_input_gets_a_sentence(inverter):
    with pytest.raises(ValueError, match="depths 1 to 4"):
        inverter.represent(torch.rand(1, 3, 64, 64), depth=5)
    with pytest.raises(ValueError, match=r"represent\(images, depth=2\)"):
        inverter.invert(torch.rand(1, 3, 64, 64), depth=2)
    with pytest.raises(ValueError, match=r"\(N, 3, H, W\)"):
        inverter.represent(torch.rand(3, 64, 64))
    with pytest.raises(ValueError, match="no noise"):
        inverter.invert(inverter.represent(torch.rand(1, 3, 64, 64)), noise=torch.randn(1))


def test_weights_of_something_else_are_refused(tmp_path):
    store.save(tmp_path / "odd", {"a": torch.zeros(1)}, {"method": "classifier"})
    with pytest.raises(ValueError, match="holds no inverter"):
        invkit.load_inverter(tmp_path / "odd")
    with pytest.raises(FileNotFoundError, match="shipped"):
        invkit.load_inverter("no-such-inverter")


@pytest.fixture(scope="module")
def of_a_generator():
    generator = load_generator("facegan")
    sizes = [(8, 1)] * len(generator.blocks)
    return dci.invert_generator(generator, sizes=sizes, batch=4, schedule=QUICK, progress=False)


def test_a_generator_is_inverted_by_the_same_code(of_a_generator):
    generator = of_a_generator.generator
    faces = generator.images(generator.sample_latents(2, seed=1))
    latents = of_a_generator.invert(faces)
    assert latents.shape == (2, generator.latent_dim)
    again = of_a_generator.reconstruct(faces)
    assert again.shape == faces.shape and 0 <= again.min() and again.max() <= 1
    dci.add_feedback(of_a_generator, generator.sample_latents(4, seed=2))
    assert set(of_a_generator.card["feedback"]) == {"5"}
    photos = torch.rand(1, 3, 100, 90)
    assert of_a_generator.represent(photos, depth=5).shape == (1, 3, 64, 64)
    assert torch.equal(of_a_generator.invert(photos), of_a_generator.invert(of_a_generator.represent(photos)))


@shipped
def test_shipped_zero_shot_inverter_reads_photos_back():
    inverter = invkit.load_inverter("dci-lite0")
    photos = invkit.data.load("photos", n=4).images
    convolutions = {block.convolutions: block.depth for block in reversed(inverter.classifier.blocks)}
    with torch.no_grad():
        quality = [
            invkit.metrics.psnr(inverter.reconstruct(photos, convolutions[c]), photos).mean() for c in (3, 9, 15, 24)
        ]
    assert quality[0] > 28 and quality[1] > 21 and quality[2] > 18 and quality[3] > 16
    assert sorted(quality, reverse=True) == quality  # deeper tells less


# ---- inverters of logits ---------------------------------------------------------------------------------------------


def tiny_classifier() -> Classifier:
    torch.manual_seed(0)
    return Classifier(nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 10)), "tiny", size=32)


@pytest.fixture(scope="module")
def of_logits():
    """Draws 16 pixels, from the logits of a classifier that takes 32."""
    generator = {"channels": (16, 16, 8), "noise_dim": 12, "hidden": 16, "shared_dim": 16, "coarse": 4}
    return ffi.train_inverter(
        tiny_classifier(), torch.rand(32, 3, 16, 16), steps=6, batch=8, lr=0.01, objective="regression",
        generator=generator, progress=False,
    )  # fmt: skip


def test_logits_are_those_of_what_is_drawn(of_logits):
    """A photo first gets the drawing's size, then the classifier's: it sees no more than can be drawn."""
    small = torch.rand(2, 3, 16, 16)
    large = TF.resize(small, [32, 32], antialias=True).clamp(0, 1)
    torch.testing.assert_close(of_logits.represent(small), of_logits.classifier.logits(large))
    assert of_logits.represent(torch.rand(2, 3, 50, 40)).shape == (2, 10)
    depth = of_logits.depths[0]
    assert of_logits.depths == [len(of_logits.classifier.blocks)]
    torch.testing.assert_close(of_logits.reconstruct(small, depth=depth), of_logits.reconstruct(small))


def test_noise_is_chosen_drawn_or_its_centre(of_logits):
    z = of_logits.represent(torch.rand(3, 3, 16, 16))
    state = torch.get_rng_state()
    centre = of_logits.invert(z)
    assert torch.equal(centre, of_logits.invert(z, noise=torch.zeros(3, 12)))
    noise = of_logits.sample_noise(3, seed=4)
    assert torch.equal(of_logits.sample_noise(5, seed=4)[:3], noise) and torch.equal(torch.get_rng_state(), state)
    drawn = of_logits.invert(z, noise=noise)
    assert not torch.equal(drawn, centre) and 0 <= drawn.min() and drawn.max() <= 1
    mean = of_logits.mean_reconstruction(z, samples=4, seed=1)
    one_by_one = [of_logits.invert(z, noise=part) for part in of_logits.sample_noise(12, seed=1).split(3)]
    torch.testing.assert_close(mean, torch.stack(one_by_one).mean(0))


def test_gradients_flow_to_the_logits_but_not_into_the_generator(of_logits):
    z = of_logits.represent(torch.rand(1, 3, 16, 16)).clone().requires_grad_()
    of_logits.invert(z).sum().backward()
    assert z.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in of_logits.generator.parameters())


def test_wrong_logits_and_noise_get_a_sentence(of_logits):
    z = torch.zeros(2, 10)
    with pytest.raises(ValueError, match=r"shape \(N, 10\), not torch.float32 \(2, 9\)"):
        of_logits.invert(torch.zeros(2, 9))
    with pytest.raises(ValueError, match="torch.int64"):
        of_logits.invert(z.long())
    with pytest.raises(ValueError, match="NaN or infinity"):
        of_logits.invert(z + float("nan"))
    for noise in (torch.zeros(3, 12), torch.zeros(2, 5), torch.zeros(2, 12).long(), torch.full((2, 12), float("nan"))):
        with pytest.raises(ValueError, match=r"sample_noise\(2, seed=0\)"):
            of_logits.invert(z, noise=noise)
    with pytest.raises(ValueError, match="n=0"):
        of_logits.sample_noise(0)
    with pytest.raises(ValueError, match="logits alone"):
        of_logits.represent(torch.rand(1, 3, 16, 16), depth=0)
    for wrong in (torch.rand(1, 2, 16, 16), torch.zeros(1, 3, 16, 16, dtype=torch.uint8)):
        with pytest.raises(ValueError, match=r"\(N, [3C], H, W\)"):
            of_logits.represent(wrong)
    for wrong in (torch.rand(1, 3, 16, 16) + 1, torch.full((1, 3, 16, 16), float("nan"))):
        with pytest.raises(ValueError, match=r"\[0, 1\] without NaN"):
            of_logits.represent(wrong)


# ---- all three kinds -------------------------------------------------------------------------------------------------

KINDS = ["inverter", "of_a_generator", "of_logits"]


@pytest.fixture(params=KINDS)
def any_kind(request):
    return request.getfixturevalue(request.param)


def test_all_kinds_follow_one_protocol(any_kind):
    assert isinstance(any_kind, Inverter)
    for name in ("represent", "invert", "reconstruct", "to", "save"):
        wanted = inspect.signature(getattr(Inverter, name)).parameters
        found = inspect.signature(getattr(type(any_kind), name)).parameters
        assert list(found)[: len(wanted)] == list(wanted)
        assert all(p.kind is p.KEYWORD_ONLY for p in list(found.values())[len(wanted) :])
    images = torch.rand(2, 3, 40, 50)
    depth = any_kind.depths[-1]
    representation = any_kind.represent(images, depth=depth)
    assert torch.equal(representation, any_kind.represent(images))
    found = any_kind.invert(representation, depth=depth, noise=None, search=0)
    assert torch.equal(found, any_kind.invert(representation))
    reconstruction = any_kind.reconstruct(images, depth=depth, noise=None, search=0)
    assert reconstruction.shape == (2, 3, any_kind.size, any_kind.size)
    assert torch.equal(reconstruction, any_kind.reconstruct(images))
    assert any_kind.to("cpu") is any_kind


def test_all_kinds_refuse_depths_that_are_none_of_theirs(any_kind):
    images = torch.rand(1, 3, 32, 32)
    representation = any_kind.represent(images)
    for wrong in (0, 99, torch.zeros(1, 12)):
        for call, given in ((any_kind.represent, images), (any_kind.invert, representation)):
            with pytest.raises(ValueError, match="This inverter inverts"):
                call(given, wrong)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_kinds_without_a_search_say_so(kind, request):
    with pytest.raises(ValueError, match="leave out search"):
        request.getfixturevalue(kind).reconstruct(torch.rand(1, 3, 32, 32), search=3)


def test_saved_and_loaded_all_kinds_reconstruct_the_same(any_kind, tmp_path, monkeypatch):
    """In half precision; what was trained for images of another size than the network's own comes back for them."""
    if any_kind.card["network"] == "tiny":
        monkeypatch.setitem(any_kind.card, "network", f"{__name__}:tiny_classifier")
        monkeypatch.setitem(sys.modules, __name__, sys.modules[tiny_classifier.__module__])
    written = any_kind.save(tmp_path / "mine")
    loaded = invkit.load_inverter(tmp_path / "mine")
    assert written["half"] and any_kind.card.items() <= written.items()
    assert loaded.card == json.loads(json.dumps(written))  # its tuples are lists
    assert type(loaded) is type(any_kind) and loaded.size == any_kind.size and loaded.depths == any_kind.depths
    images = torch.rand(2, 3, 40, 40)
    for depth in any_kind.depths:
        found, before = loaded.reconstruct(images, depth), any_kind.reconstruct(images, depth)
        torch.testing.assert_close(found, before, atol=5e-3, rtol=0)
