"""An inverter of one's own classifier in a number of minutes: trained, kept, loaded, stopped and gone on with."""

import time

import pytest
import torch
from PIL import Image
from torch import nn

import invkit
from invkit import fit, training
from invkit.dci import synthetic
from invkit.dci.chain import map_shapes
from invkit.dci.invert import synthetic_for
from invkit.ffi.whitening import Whitening
from invkit.minutes import Budget

LENGTH = {"minutes": 0.1, "progress": False}  # 6 seconds of the clock below: some 15 steps


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """A clock that only training steps (0.25 s) and images (20 ms) move: no machine's pace is measured.

    Returns {"step": 0.25, "image": 0.02}, to be changed.
    """
    pace = {"step": 0.25, "image": 0.02}
    now, one_step, dead_leaves = [0.0], training._one_step, synthetic.dead_leaves

    def look():
        now[0] += 1e-6
        return now[0]

    def step(*arguments):
        now[0] += pace["step"]
        return one_step(*arguments)

    def leaves(n, *arguments, **settings):
        now[0] += pace["image"] * n
        return dead_leaves(n, *arguments, **settings)

    monkeypatch.setattr(time, "monotonic", look)
    monkeypatch.setattr(synthetic, "dead_leaves", leaves)
    monkeypatch.setattr(training, "_one_step", step)
    return pace


def network(channels=3, classes=3):
    torch.manual_seed(0)
    layers = [nn.Conv2d(channels, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, classes)).eval()


@pytest.fixture(scope="module")
def classifier():
    return invkit.Classifier(network(), "my cnn", size=16)


def photos(n=8, size=16, seed=5):
    return synthetic.dead_leaves(n, size, seed)


def test_without_an_image_every_map_is_inverted_and_what_is_kept_is_what_was_trained(classifier, tmp_path):
    inverter = invkit.train_inverter(classifier, **LENGTH)
    assert inverter.depths == [1, 2] and inverter.card["minutes"] == 0.1 and 5 < inverter.card["steps"] < 25
    images = photos()
    plain = invkit.metrics.psnr(images.mean((2, 3), keepdim=True).expand_as(images), images).mean()
    assert invkit.metrics.psnr(inverter.reconstruct(images, depth=1), images).mean() > plain + 1
    inverter.save(tmp_path)
    loaded = invkit.load_inverter(tmp_path, classifier=classifier)
    for depth in inverter.depths:
        assert torch.equal(loaded.reconstruct(images, depth), inverter.reconstruct(images, depth))


def test_depths_of_ones_own_choice(classifier, tmp_path):
    assert invkit.train_inverter(classifier, depths=1, **LENGTH).depths == [1]
    some = invkit.train_inverter(classifier, depths=(3, 1), **LENGTH)  # the third are the logits
    assert some.depths == [1, 3] and len(some.chain.inverses) == 3
    some.save(tmp_path)
    assert invkit.load_inverter(tmp_path, classifier=classifier).depths == [1, 3]
    with pytest.raises(ValueError, match="inverts depths 1, 3, not 2"):
        some.reconstruct(photos(1), depth=2)
    for wrong in (20, 0, [], [1, 9], [1.5]):
        with pytest.raises(ValueError, match="my cnn can be inverted at depths 1 to 3, not at"):
            invkit.train_inverter(classifier, depths=wrong, **LENGTH)


def test_with_images_the_logits_are_inverted(classifier, tmp_path):
    for i, image in enumerate((photos(60) * 255).byte().permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    inverter = invkit.train_inverter(classifier, f"folder:{tmp_path}", **LENGTH)
    assert isinstance(inverter, invkit.LogitInverter) and inverter.size == 16
    assert 10 < inverter.card["images"] < 40  # the split "inverter"
    inverter.save(tmp_path / "mine")
    loaded = invkit.load_inverter(tmp_path / "mine", classifier=classifier)
    assert torch.equal(loaded.reconstruct(photos()), inverter.reconstruct(photos()))


def test_images_may_be_floats_bytes_or_data(classifier):
    of_data = invkit.data.Data(photos(4), torch.zeros(4).long(), tuple("abcd"))
    for images in (photos(4), (photos(4) * 255).byte(), of_data):
        assert fit.images_to_train_on(images, classifier).shape == (4, 3, 16, 16)


def test_very_many_logits_are_not_whitened(monkeypatch):
    """The map that whitens 20,000 logits has 400 million numbers, of a decomposition that takes hours."""
    monkeypatch.setattr(fit, "WHITENED", 300)
    many = invkit.Classifier(network(classes=fit.WHITENED + 1), "many", size=16)
    monkeypatch.setattr(Whitening, "fit", lambda *arguments: pytest.fail("whitened"))
    inverter = invkit.train_inverter(many, photos(8), size=8, **LENGTH)
    assert inverter.reconstruct(photos()).shape == (8, 3, 8, 8)


def test_shallow_blocks_are_trained_on_crops_where_the_network_takes_them():
    layers = [
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, 4, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 2),
    ]
    convolutions = invkit.Classifier(nn.Sequential(*layers), "convolutions", size=128)
    assert [fit._crop_side(convolutions, k, s) for k, s in enumerate(map_shapes(convolutions))] == [128, 64, 128, 128]

    class Places(nn.Module):
        def __init__(self):
            super().__init__()
            self.places = nn.Parameter(torch.randn(1, 4, 64, 64))

        def forward(self, x):
            return x + self.places

    fixed = invkit.Classifier(nn.Sequential(layers[0], Places(), *layers[2:]), "places", size=128)
    assert [fit._crop_side(fixed, k, s) for k, s in enumerate(map_shapes(fixed))] == [128, 64, 128, 128, 128]


def test_an_mlp_a_module_and_a_name():
    torch.manual_seed(0)
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 4))
    inverter = invkit.train_inverter(invkit.Classifier(mlp, "mlp", size=8), **LENGTH)
    assert inverter.depths == [1, 2] and inverter.reconstruct(photos(size=8)).shape == (8, 3, 8, 8)
    assert invkit.train_inverter("glyphs-plain-0", depths=1, **LENGTH).classifier.name == "glyphs-plain-0"


def test_a_file_of_weights_is_found_again_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(invkit.load_classifier("glyphs-plain-0", pretrained=False).model.state_dict(), "mine.pth")
    classifier = invkit.load_classifier("glyphs-plain-0", weights="mine.pth")
    invkit.train_inverter(classifier, depths=1, **LENGTH).save("kept")
    monkeypatch.chdir("/")
    assert invkit.load_inverter(tmp_path / "kept").classifier.fingerprint == classifier.fingerprint
    (tmp_path / "mine.pth").unlink()
    with pytest.raises(FileNotFoundError, match="no file of weights .*mine.pth .*: check the path"):
        invkit.load_inverter(tmp_path / "kept")


def test_grey_images():
    grey = invkit.Classifier(network(channels=1), "grey", size=16)
    inverter = invkit.train_inverter(grey, **LENGTH)
    assert inverter.reconstruct(photos()).shape == (8, 1, 16, 16)
    assert torch.equal(inverter.reconstruct(grey.convert(photos())), inverter.reconstruct(photos()))
    assert invkit.train_inverter(grey, photos(8), size=8, **LENGTH).reconstruct(photos()).shape == (8, 3, 8, 8)
    for images in (photos(4), (photos(4) * 255).byte()):  # logits of grey images are no reason to draw colours
        taught = fit._as_seen(images, grey)
        assert taught.dtype == images.dtype and taught.shape == images.shape and torch.equal(taught[:, 0], taught[:, 2])
        rounded = 1e-6 if images.is_floating_point() else 0.51
        torch.testing.assert_close(taught[:, :1].float(), grey.convert(images.float()), atol=rounded, rtol=0)
    inverter = invkit.train_inverter(grey, grey.convert(photos(8)), size=8, **LENGTH)
    assert inverter.card["images"] == 8 and inverter.reconstruct(grey.convert(photos())).shape == (8, 3, 8, 8)


@pytest.mark.parametrize("channels", [2, 4])
def test_images_of_other_channels(channels, tmp_path):
    classifier = invkit.Classifier(network(channels), "many", size=16)
    inverter = invkit.train_inverter(classifier, depths=1, minutes=0.2, progress=False)
    images = synthetic_for(classifier, photos())
    assert images.shape == (8, channels, 16, 16) and torch.equal(images[::2, :3], photos()[::2, :channels])
    reconstructed = inverter.reconstruct(images, depth=1)
    assert reconstructed.shape == images.shape
    plain = ((images.mean((2, 3), keepdim=True) - images) ** 2).mean()
    assert ((reconstructed - images) ** 2).mean() < 0.9 * plain
    inverter.save(tmp_path)
    assert torch.equal(invkit.load_inverter(tmp_path, classifier=classifier).reconstruct(images, 1), reconstructed)
    with pytest.raises(ValueError, match=f"takes images of {channels} channels, and its logits .* leave out images"):
        invkit.train_inverter(classifier, images, **LENGTH)


def test_a_stopped_training_goes_on_and_its_schedule_is_complete(classifier, tmp_path, monkeypatch):
    undisturbed, after_step = invkit.train_inverter(classifier, **LENGTH), Budget.after_step

    def stopped(self, progress):
        after_step(self, progress)
        if progress.folder.name == "synchronise" and progress.step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match=f"same call goes on from {tmp_path}"):
        patch.setattr(Budget, "after_step", stopped)
        invkit.train_inverter(classifier, folder=tmp_path, **LENGTH)
    again = invkit.train_inverter(classifier, folder=tmp_path, **LENGTH)
    assert again.card["steps"] == undisturbed.card["steps"]
    assert torch.equal(again.reconstruct(photos()), undisturbed.reconstruct(photos()))
    monkeypatch.setattr(training, "_one_step", lambda *arguments: pytest.fail("trained again"))
    finished = invkit.train_inverter(classifier, folder=tmp_path, **LENGTH)
    assert torch.equal(finished.reconstruct(photos()), again.reconstruct(photos()))
    with pytest.raises(ValueError, match="holds a training with minutes = 0.1, this call has 0.2: give the same"):
        invkit.train_inverter(classifier, folder=tmp_path, minutes=0.2)


def test_a_network_that_lets_nothing_through_gets_a_sentence_before_it_is_trained_on(monkeypatch):
    """As many do with random weights: in half precision the units of such a depth would be zero."""
    faint = network()
    nn.init.normal_(faint[2].weight, std=1e-7)
    faint[3] = nn.Identity()
    nn.init.zeros_(faint[2].bias)
    monkeypatch.setattr(training, "_one_step", lambda *arguments: pytest.fail("trained"))
    with pytest.raises(ValueError, match=r"faint puts out at depth 2 is the same .* is it trained\? .* depths=1"):
        invkit.train_inverter(invkit.Classifier(faint, "faint", size=16), **LENGTH)


def test_calls_that_make_no_sense_get_a_sentence(classifier, tmp_path):
    with pytest.raises(ValueError, match=r"own 16 pixels, not 32: load it with load_classifier\(…, size=32\)"):
        invkit.train_inverter(classifier, size=32, **LENGTH)
    with pytest.raises(ValueError, match="inverts the logits alone: leave out depths, or images"):
        invkit.train_inverter(classifier, photos(), depths=1, **LENGTH)
    with pytest.raises(FileNotFoundError, match="There is no folder .*nowhere"):
        invkit.train_inverter(classifier, f"folder:{tmp_path}/nowhere", **LENGTH)
    for wrong in (0, -1, float("nan"), float("inf"), "ten", None, True):
        with pytest.raises((ValueError, TypeError), match="minutes must be above 0|takes minutes as float, not"):
            invkit.train_inverter(classifier, minutes=wrong, folder=tmp_path)
    for wrong in (photos(1), [1, 2], 5):
        with pytest.raises(TypeError, match="Images to train on are a tensor of 4 or more|takes images as Tensor"):
            invkit.train_inverter(classifier, wrong, **LENGTH)
    with pytest.raises(KeyboardInterrupt, match="with folder= it could go on"):
        raise_inside(classifier)


def raise_inside(classifier):
    def interrupted(self, progress):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Budget, "after_step", interrupted)
        invkit.train_inverter(classifier, **LENGTH)


@pytest.mark.parametrize("of_logits", [False, True])
def test_too_few_minutes_are_refused_and_a_minute_late_is_borne(classifier, tmp_path, clock, of_logits):
    images = photos() if of_logits else None
    settings = {"folder": tmp_path, "progress": False}
    clock |= {"step": 60.0, "image": 1.0}  # a network so slow has time for few images
    with pytest.raises(ValueError, match="0.02 minutes are too few .*: give minutes=") as refused:
        invkit.train_inverter(classifier, images, minutes=0.02, **settings)
    assert not (tmp_path / "training").exists()
    least = float(str(refused.value).partition("minutes=")[2].partition(" ")[0])
    before = time.monotonic()
    invkit.train_inverter(classifier, images, minutes=least, **settings)
    assert time.monotonic() - before < 60 * (least + 1)
    clock |= {"step": 1.0, "image": 0.02}
    late = invkit.train_inverter(classifier, images, minutes=0.02, progress=False)
    assert late.card["minutes"] == 0.02


def test_minutes_are_tried_on_the_logits_by_the_refusals_of_the_training_and_nothing_is_trained_to_its_end(
    classifier, clock
):
    clock["step"] = 60.0
    with pytest.raises(fit.TooFewMinutes) as trained:
        invkit.train_inverter(classifier, photos(), minutes=0.02, progress=False)
    with pytest.raises(fit.TooFewMinutes) as tried:
        fit.try_on_logits(classifier, photos(), 0.02)
    assert tried.value.least == trained.value.least
    before = time.monotonic()
    fit.try_on_logits(classifier, photos(), tried.value.least)
    steps = (time.monotonic() - before) / 60
    assert 6 < steps < 12, "three steps of each phase but the last are timed, and one is made"


def test_a_slow_first_pass_is_enough_to_refuse_too_few_minutes(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "_check_faint", lambda *arguments: (10.0, None))
    monkeypatch.setattr(fit, "_seconds_back", lambda *arguments: pytest.fail("went on"))
    monkeypatch.setattr(synthetic, "draw_pool", lambda *arguments, **settings: pytest.fail("went on"))
    with pytest.raises(fit.TooFewMinutes, match="2 minutes are too few .*: give minutes=15"):
        invkit.train_inverter(classifier, minutes=2, folder=tmp_path, progress=False)
    assert not (tmp_path / "training").exists()


def test_slow_steps_are_foreseen_and_as_many_minutes_wanted_as_when_they_are_made(classifier, clock, monkeypatch):
    """Sixteen pixels a side: a step has 24 such images, six times as many as those that are timed before."""
    clock["step"] = 60.0
    with pytest.raises(fit.TooFewMinutes) as made:
        invkit.train_inverter(classifier, minutes=2, progress=False)
    with monkeypatch.context() as patch, pytest.raises(fit.TooFewMinutes) as foreseen:
        patch.setattr(fit, "_seconds_back", lambda *arguments: 10.0)
        patch.setattr(synthetic, "draw_pool", lambda *arguments, **settings: pytest.fail("went on"))
        invkit.train_inverter(classifier, minutes=2, progress=False)
    assert 0.6 < foreseen.value.least / made.value.least < 1.4
    assert str(fit.TooFewMinutes(1, 2)).startswith("1 minute is too few to train")
    assert fit._seconds_back(map_shapes(classifier)[:2], [(8, 1, (False, False))], torch.rand(4, 8, 8, 8)) > 0
