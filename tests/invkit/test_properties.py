"""Public functions of images on drawn ones: any form of the same images gives the same, what is none gets a sentence.

Nothing around a call may change: the images, the grad mode, the mode of the network, PyTorch's random numbers.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import nn

import invkit
from invkit import attacks, metrics
from invkit.checks import check_size
from invkit.data.images import fit_square
from invkit.data.photos import read_photo, write_png
from invkit.dci import invert_classifier, synthetic
from invkit.dci.chain import Chain, map_shapes
from invkit.dci.inverter import ClassifierInverter
from invkit.ffi.biggan import LogitGenerator
from invkit.ffi.inverter import LogitInverter
from invkit.ffi.pairs import pairs
from invkit.leakage import measure_logits
from invkit.optimize import invert_features
from invkit.statistics import bootstrap
from invkit.training import Player, train

SIDE = 16
quickly = settings(
    derandomize=True, deadline=None, max_examples=8, database=None, phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


def made():
    """A small network, and its inverters of blocks and of logits, with random weights."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(), nn.Flatten()]
    classifier = invkit.Classifier(nn.Sequential(*layers, nn.Linear(256, 5)), "small", size=SIDE)
    chain = ClassifierInverter(Chain(map_shapes(classifier)[:3], [(8, 1), (8, 1)]), classifier, {"size": SIDE})
    generator = LogitGenerator(SIDE, 5, noise_dim=12, channels=(8, 8, 8), coarse=4, hidden=16, spectral=False)
    return classifier, chain, LogitInverter(generator, classifier, {"kind": "logits"})


CLASSIFIER, CHAIN, OF_LOGITS = made()
OTHERS = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(9))


def labels(images):
    return torch.arange(len(images)) % 5


PURE = {  # images (N, 3, SIDE, SIDE) -> a tensor
    "preprocess": CLASSIFIER.preprocess,
    "logits": CLASSIFIER.logits,
    "features": lambda x: CLASSIFIER.features(x, 2),
    "convert": CLASSIFIER.convert,
    "chain.represent": CHAIN.represent,
    "chain.reconstruct": CHAIN.reconstruct,
    "of_logits.reconstruct": OF_LOGITS.reconstruct,
    "fit_square": lambda x: fit_square(x, 8),
    "psnr": lambda x: metrics.psnr(x, OTHERS[: len(x)].to(x.dtype)),
    "ssim": lambda x: metrics.ssim(x, OTHERS[: len(x)].to(x.dtype)),
    "thumbnail": lambda x: metrics.thumbnail(x, 4),
    "retrieval_ranks": lambda x: metrics.retrieval_ranks(x.flip(0), x),
}
SEARCHING = {  # those that follow gradients, and so need the grad mode for themselves
    "pgd": lambda x: attacks.pgd(CLASSIFIER, x, labels(x), steps=2),
    "clean_accuracy": lambda x: attacks.clean_accuracy(CLASSIFIER, x, labels(x)),
    "robust_accuracy": lambda x: attacks.robust_accuracy(CLASSIFIER, x, labels(x), steps=2),
    "search": lambda x: CHAIN.reconstruct(x, search=2),
    "invert_features": lambda x: invert_features(CLASSIFIER, CLASSIFIER.features(x, 2), 2, steps=2).estimate,
}
ALL = PURE | SEARCHING
CHECKED = {
    name: call for name, call in ALL.items() if name not in ("convert", "fit_square")
}  # these two take any range

images = st.builds(
    lambda n, seed: torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)),
    st.integers(1, 3),
    st.integers(0, 99),
)
FORMS = {
    "as it is": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "a part of a larger one": lambda x: torch.cat([x, x], 3)[..., :SIDE],
    "every other": lambda x: x.repeat_interleave(2, 0)[::2],
    "transposed twice": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "with a gradient": lambda x: x.clone().requires_grad_(),
    "of a graph": lambda x: x.clone().requires_grad_() * 1.0,
    "single rows": lambda x: x[:1].expand_as(x) if len(x) == 1 else x,
}
CONTEXTS = {
    "grad": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode, "training": nullcontext,
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
@quickly
@given(images=images, form=st.sampled_from(list(FORMS)), context=st.sampled_from(list(CONTEXTS)))
def test_every_form_of_images_gives_the_same_and_nothing_else_changes(name, images, form, context):
    call = ALL[name]
    expected = call(images)
    given = FORMS[form](images)
    before, state, grad = given.detach().clone(), torch.get_rng_state(), torch.is_grad_enabled()
    CLASSIFIER.model.train(context == "training")
    try:
        with CONTEXTS[context]():
            inside = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            found = call(given)
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == inside
        assert CLASSIFIER.model.training == (context == "training")
    finally:
        CLASSIFIER.model.eval()
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-4, atol=2e-5)
    assert torch.equal(given.detach(), before) and torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled() == grad
    assert not any(p.requires_grad or p.grad is not None for p in CLASSIFIER.model.parameters())


@pytest.mark.parametrize("name", ALL)
@quickly
@given(images=images, dtype=st.sampled_from([torch.float64, torch.float16, torch.bfloat16]))
def test_other_floats_are_taken(name, images, dtype):
    found = ALL[name](images.to(dtype))
    assert found.isfinite().all() if found.is_floating_point() else len(found) == len(images)


@pytest.mark.parametrize("name", ALL)
@quickly
@given(images=images)
def test_under_autocast_it_is_nearly_the_same(name, images):
    expected = ALL[name](images)
    with torch.autocast("cpu", torch.bfloat16):
        found = ALL[name](images)
    assert found.shape == expected.shape and (found == found).all()
    if name in PURE:  # a search goes another way from the first rounding on
        scale = 1.0 if name == "ssim" else expected.abs().max().item()
        torch.testing.assert_close(found.float(), expected.float(), rtol=0.1, atol=0.05 * scale)


WRONG = {
    "bytes": (lambda x: (x * 255).byte(), TypeError),
    "levels": (lambda x: (x * 255).round().clamp(min=2), ValueError),
    "integers": (lambda x: x.long(), TypeError),
    "none": (lambda x: x[:0], ValueError),
    "no height": (lambda x: x[..., :0, :], ValueError),
    "one image without a batch": (lambda x: x[0], ValueError),
    "four channels": (lambda x: torch.cat([x, x[:, :1]], 1), ValueError),
    "not a number": (lambda x: x.where(x > x.mean(), torch.nan), ValueError),
    "infinite": (lambda x: x / 0, ValueError),
    "a list": (lambda x: x.tolist(), TypeError),
    "an array": (lambda x: x.numpy(), TypeError),
    "sparse": (lambda x: x.to_sparse(), TypeError),
    "without memory": (lambda x: x.to("meta"), TypeError),
}
TAKES = {name: CHECKED[name] for name in CHECKED if name not in ("invert_features", "psnr", "ssim", "retrieval_ranks")}
TAKES |= {
    "psnr": lambda x: metrics.psnr(x, OTHERS),
    "ssim": lambda x: metrics.ssim(OTHERS, x),
    "retrieval_ranks": lambda x: metrics.retrieval_ranks(x, OTHERS),
    "pgd": lambda x: attacks.pgd(CLASSIFIER, x, torch.zeros(3, dtype=torch.int64)),
    "clean_accuracy": lambda x: attacks.clean_accuracy(CLASSIFIER, x, torch.zeros(3, dtype=torch.int64)),
    "robust_accuracy": lambda x: attacks.robust_accuracy(CLASSIFIER, x, torch.zeros(3, dtype=torch.int64)),
}


@pytest.mark.parametrize("name", TAKES)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_image_gets_one_sentence(name, wrong):
    change, error = WRONG[wrong]
    with pytest.raises(error, match=r"^[^\n]+\.$"):
        TAKES[name](change(OTHERS))


ODD = {  # an argument beside the images that is none of those there are
    "a depth of text": (lambda: CLASSIFIER.features(OTHERS, "2"), ValueError),
    "half a depth": (lambda: CLASSIFIER.features(OTHERS, 1.5), ValueError),
    "a depth that is no number": (lambda: CHAIN.reconstruct(OTHERS, float("nan")), ValueError),
    "a ball of text": (lambda: attacks.pgd(CLASSIFIER, OTHERS, labels(OTHERS), epsilon="8/255"), ValueError),
    "a size of text": (lambda: fit_square(OTHERS, "8"), ValueError),
    "half a size": (lambda: fit_square(OTHERS, 2.5), ValueError),
    "weights without a name": (lambda: invkit.load_inverter(None), TypeError),
    "weights of a number": (lambda: invkit.load_inverter(3), TypeError),
    "weights of an empty name": (lambda: invkit.load_inverter(""), FileNotFoundError),
    "weights of bytes": (lambda: invkit.load_inverter(b"dci-lite0"), TypeError),
    "another word for a GPU": (lambda: CHAIN.to("gpu"), ValueError),
    "no device": (lambda: CLASSIFIER.to(None), ValueError),
    "a device that no machine has": (lambda: OF_LOGITS.to("cuda:99"), ValueError),
    "a type in place of a device": (lambda: OF_LOGITS.to(torch.float16), ValueError),
    "noise of text": (lambda: OF_LOGITS.sample_noise("2"), ValueError),
    "a photo without a path": (lambda: read_photo(None), TypeError),
    "a photo of a number": (lambda: write_png(3, OTHERS[0]), TypeError),
    "a photo of NaN": (lambda: write_png("a.png", OTHERS[0] / 0 * 0), ValueError),
    "a data set without a name": (lambda: invkit.data.load(None), ValueError),
    "labels in a list": (lambda: invkit.data.Data(OTHERS, [0, 1, 2], ("a", "b", "c")), TypeError),
    "weights to no folder": (lambda: OF_LOGITS.save(None), TypeError),
    "weights in a list": (lambda: invkit.store.save("a", [OTHERS], {}), ValueError),
    "a card in a list": (lambda: invkit.store.save("a", {"w": OTHERS}, [1]), TypeError),
    "a card that is nested too deep": (lambda: invkit.store.save("a", {"w": OTHERS}, nested(10**5)), ValueError),
    "weights whose names are numbers": (lambda: invkit.store.save("a", {1: OTHERS}, {}), ValueError),
    "sparse weights": (lambda: invkit.store.save("a", {"w": OTHERS.to_sparse()}, {}), ValueError),
    "weights without memory": (lambda: invkit.store.save("a", {"w": OTHERS.to("meta")}, {}), ValueError),
    "a map without memory": (
        lambda: CHAIN.invert(torch.empty(CHAIN.represent(OTHERS).shape, device="meta")),
        ValueError,
    ),
}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_argument_gets_one_sentence(odd):
    call, error = ODD[odd]
    with pytest.raises(error, match=r"^[^\n]+\.$"):
        call()


FAR = "a" * 5000
PATHS = {  # -> what takes a path
    "load_inverter": invkit.load_inverter,
    "load_classifier": invkit.load_classifier,
    "weights of a classifier": lambda path: invkit.load_classifier("lite0", weights=f"{path}.pth"),
    "a folder of images": lambda path: invkit.data.load(f"folder:{path}"),
    "imagenet": lambda path: invkit.data.load(f"imagenet:{path}"),
    "tiny-imagenet": lambda path: invkit.data.load(f"tiny-imagenet:{path}"),
    "a photo": read_photo,
    "a photo to write": lambda path: write_png(path, OTHERS[0]),
    "save": CHAIN.save,
    "store.save": lambda path: invkit.store.save(path, {"w": OTHERS}, {}),
    "read_card": invkit.store.read_card,
    "a report": lambda path: invkit.report.write_report(CLASSIFIER, path, minutes=0.01),
    "a training": lambda path: invkit.train_inverter(CLASSIFIER, minutes=0.01, folder=path, progress=False),
    "a training of steps": lambda path: train([], lambda step: None, steps=1, folder=path),
    "pairs": lambda path: pairs(CLASSIFIER, OTHERS, folder=path, progress=False),
}


@pytest.mark.parametrize("path", [FAR, "a" * 300, "b/" * 2500, "a\0b"], ids=["one", "a name", "folders", "NUL"])
@pytest.mark.parametrize("takes", PATHS)
def test_a_path_that_no_disk_takes_gets_one_sentence(takes, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=r"^[^\n]+\.$"):
        PATHS[takes](path)
    assert not list(tmp_path.iterdir())


# what is asked for -> a call with so many; 10^9 is too many for any memory, 10^12 too many to count
ABSURD_SIZES = {
    "glyphs": lambda n: invkit.data.load("glyphs", n=n),
    "glyphs of a size": lambda n: invkit.data.load("glyphs", n=1, size=n),
    "faces": lambda n: invkit.data.load("faces", n=n),
    "photos": lambda n: invkit.data.load("photos", n=n),
    "photos of a size": lambda n: invkit.data.load("photos", n=1, size=n),
    "fit_square": lambda n: fit_square(OTHERS, n),
    "thumbnail": lambda n: metrics.thumbnail(OTHERS, n),
    "white_noise": lambda n: synthetic.white_noise(n, 32),
    "pink_noise of a size": lambda n: synthetic.pink_noise(1, n),
    "dead_leaves": lambda n: synthetic.dead_leaves(n, 32),
    "draw_pool": lambda n: synthetic.draw_pool(n, 32),
    "a pool's batch": lambda n: synthetic.Pool(OTHERS).batch(0, n, 8),
    "noise": lambda n: OF_LOGITS.sample_noise(n * 100),
    "bootstrap": lambda n: bootstrap([1.0, 2.0, 3.0], n_boot=n),
    "features inverted at a size": lambda n: invert_features(CLASSIFIER, CLASSIFIER.features(OTHERS, 2), 2, size=n),
    "samples": lambda n: measure_logits(OF_LOGITS, OTHERS, samples=n),
    "views": lambda n: pairs(CLASSIFIER, OTHERS, views=n),
    "sizes of pairs": lambda n: pairs(CLASSIFIER, OTHERS, size=n),
    "inverses": lambda n: invert_classifier(CLASSIFIER, OTHERS, depth=1, sizes=[(n, 2)]),
    "depths": lambda n: invkit.train_inverter(CLASSIFIER, depths=n, minutes=0.01),
    "a classifier's size": lambda n: invkit.Classifier(CLASSIFIER.model, "small", size=n),
}
ABSURD_COUNTS = {  # what takes time alone
    "steps of an attack": lambda n: attacks.pgd(CLASSIFIER, OTHERS, labels(OTHERS), steps=n),
    "steps of a search": lambda n: CHAIN.reconstruct(OTHERS, search=n),
    "steps of an optimisation": lambda n: invert_features(CLASSIFIER, CLASSIFIER.features(OTHERS, 2), 2, steps=n),
    "levels": lambda n: invert_features(CLASSIFIER, CLASSIFIER.features(OTHERS, 2), 2, steps=1, levels=n),
    "steps of a training": lambda n: train(player(), lambda step: OTHERS, steps=n),
    "a seed of glyphs": lambda n: invkit.data.load("glyphs", n=1, seed=n),
    "a seed of an attack": lambda n: attacks.pgd(CLASSIFIER, OTHERS, labels(OTHERS), steps=1, seed=n * 10**6),
    "a seed of a training": lambda n: train(player(), lambda step: OTHERS, steps=1, seed=n * 10**6),
    "a seed of inverses": lambda n: invert_classifier(CLASSIFIER, OTHERS, depth=1, seed=n * 10**6),
    "a seed of pairs": lambda n: pairs(CLASSIFIER, OTHERS, seed=n * 10**6),
    "a seed of noise": lambda n: OF_LOGITS.sample_noise(1, seed=n * 10**6),
    "a batch of pairs": lambda n: pairs(CLASSIFIER, OTHERS, batch=n),
    "the first of images": lambda n: synthetic.white_noise(1, 8, first=n),
}


def player():
    return Player("one", nn.Linear(1, 1), lambda module, batch, step: (module(batch).mean(), {}), 1e-3)


@pytest.mark.parametrize("n", [10**9, 10**12, 10**30], ids="{:.0e}".format)
@pytest.mark.parametrize("absurd", ABSURD_SIZES | ABSURD_COUNTS)
def test_an_absurd_number_gets_one_sentence_at_once(absurd, n):
    if n > 10**9 or absurd in ABSURD_SIZES:
        with pytest.raises(ValueError, match=r"^[^\n]+\.$"):
            (ABSURD_SIZES | ABSURD_COUNTS)[absurd](n)


def test_what_fits_into_memory_is_not_refused_and_what_does_not_is_told_by_how_much(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=8 << 30))
    check_size(170_000, 64)
    with pytest.raises(ValueError, match="200000 images of 64x64 pixels would take 9 GiB, and this machine has 8:"):
        check_size(200_000, 64)


def nested(deep):
    card = {}
    for _ in range(deep):
        card = {"a": card}
    return card


def test_a_device_that_is_not_there_moves_nothing():
    for one in (CLASSIFIER, CHAIN, OF_LOGITS):
        with pytest.raises(ValueError, match="no device 'gpu' on this machine: give cpu"):
            one.to("gpu")
        assert one.to("cpu") is one
    CHAIN.reconstruct(OTHERS)


@pytest.mark.parametrize("name", ALL)
def test_an_owner_who_trains_his_network_on_changes_no_result_and_nothing_of_his(name):
    """He turns its gradients on and puts it into training mode, after it was wrapped."""
    expected, network = ALL[name](OTHERS), CLASSIFIER.model
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    network.requires_grad_().train()
    try:
        found = ALL[name](OTHERS)
        assert all(module.training for module in network.modules())
        assert all(parameter.requires_grad for parameter in network.parameters())
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        assert not gradients
    finally:
        network.requires_grad_(False).eval().zero_grad()
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-4, atol=2e-5)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_two_threads_at_once_give_what_one_gives_also_while_the_owner_trains():
    batches = [torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)) for seed in range(12)]
    calls = [CLASSIFIER.logits, PURE["features"], CHAIN.reconstruct, SEARCHING["pgd"]]
    expected = [[call(batch) for call in calls] for batch in batches]
    CLASSIFIER.model.train()
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda batch: [call(batch) for call in calls], batches))
        assert all(module.training for module in CLASSIFIER.model.modules())
    finally:
        CLASSIFIER.model.eval()
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
