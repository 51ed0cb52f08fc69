"""Inverters as their users meet them: save, load, represent, invert, reconstruct."""

import pytest
import torch

import invkit
from invkit import recipes, store, synthetic
from invkit.dci import Schedule
from invkit.generators import load_generator

QUICK = Schedule(divide=1, synchronise=1)
shipped = pytest.mark.skipif("dci-lite0" not in store.shipped(), reason="dci-lite0 is not in weights/: train it first")


@pytest.fixture(scope="module")
def inverter():
    classifier = invkit.load_classifier("lite0", size=64)
    pool = synthetic.draw_pool(16, 64)
    return recipes.invert_classifier(
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
    recipes.add_feedback(inverter, synthetic.dead_leaves(2, 64, seed=9), depths=[1])
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


def test_saved_and_loaded_it_reads_the_same(inverter, tmp_path):
    store.save(tmp_path / "mine", inverter.chain.state_dict(), inverter.card)
    # The card names the classifier; at its own size of 224 the chain must still fit the shapes it was made for.
    loaded = invkit.load_inverter(tmp_path / "mine")
    assert loaded.card["method"] == "dci" and loaded.depths == inverter.depths
    h = inverter.represent(torch.rand(1, 3, 64, 64), 2)
    torch.testing.assert_close(loaded.chain(h, 2)[-1], inverter.chain(h, 2)[-1])


def test_weights_of_something_else_are_refused(tmp_path):
    store.save(tmp_path / "odd", {"a": torch.zeros(1)}, {"method": "classifier"})
    with pytest.raises(ValueError, match="holds no inverter"):
        invkit.load_inverter(tmp_path / "odd")
    with pytest.raises(FileNotFoundError, match="shipped"):
        invkit.load_inverter("no-such-inverter")


def test_a_generator_is_inverted_by_the_same_code():
    generator = load_generator("facegan")
    sizes = [(8, 1)] * len(generator.blocks)
    inverter = recipes.invert_generator(generator, sizes=sizes, batch=4, schedule=QUICK, progress=False)
    faces = generator.images(generator.sample_latents(2, seed=1))
    latents = inverter.invert(faces)
    assert latents.shape == (2, generator.latent_dim)
    again = inverter.reconstruct(faces)
    assert again.shape == faces.shape and 0 <= again.min() and again.max() <= 1
    recipes.add_feedback(inverter, generator.sample_latents(4, seed=2))
    assert set(inverter.card["feedback"]) == {"5"}
    assert inverter.invert(torch.rand(1, 3, 100, 90)).shape == (1, generator.latent_dim)


def test_recipes_say_what_they_know(tmp_path):
    assert {"dci-lite0", "dci-facegan"} <= set(recipes.names())
    with pytest.raises(ValueError, match="choose from dci-facegan"):
        recipes.train("nope", tmp_path)
    with pytest.raises(ValueError, match="above 0"):
        recipes.train("dci-lite0", tmp_path, scale=0)


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
