"""Inverters as their users meet them: save, load, represent, invert, reconstruct."""

import importlib
import inspect
import json
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn
from torchvision.transforms import functional as TF

import invkit
from invkit import dci, ffi, store
from invkit.dci import synthetic
from invkit.dci.training import Schedule
from invkit.identity import find_classifier, identity
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


def test_one_pass_in_bfloat16_is_nearly_that_in_float32(inverter, monkeypatch):
    monkeypatch.setenv("INVKIT_PRECISION", "bf16")
    images = torch.rand(2, 3, 64, 64)
    with invkit.precision.autocast("cpu"):
        fast = inverter.reconstruct(images, depth=2)
    exact = inverter.reconstruct(images, depth=2)
    assert fast.dtype == torch.float32
    assert 0 < (fast - exact).abs().max() < 0.05


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
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
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
    with pytest.raises(ValueError, match="at least 1, not 0"):
        of_logits.sample_noise(0)
    with pytest.raises(ValueError, match=r"inverts depth \d alone, not 0"):
        of_logits.represent(torch.rand(1, 3, 16, 16), depth=0)
    with pytest.raises(ValueError, match=r"\(N, [3C], H, W\)"):
        of_logits.represent(torch.rand(1, 2, 16, 16))
    with pytest.raises(TypeError, match="divide 8-bit ones by 255"):
        of_logits.represent(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))
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


def test_saved_and_loaded_all_kinds_reconstruct_the_same(any_kind, tmp_path):
    """In half precision; what was trained for images of another size than the network's own comes back for them."""
    written = any_kind.save(tmp_path / "mine")
    own = any_kind.classifier if any_kind.card["network"] == "tiny" else None
    loaded = invkit.load_inverter(tmp_path / "mine", classifier=own)
    assert written["half"] and any_kind.card.items() <= written.items()
    assert loaded.card == json.loads(json.dumps(written))  # its tuples are lists
    assert type(loaded) is type(any_kind) and loaded.size == any_kind.size and loaded.depths == any_kind.depths
    images = torch.rand(2, 3, 40, 40)
    for depth in any_kind.depths:
        found, before = loaded.reconstruct(images, depth), any_kind.reconstruct(images, depth)
        torch.testing.assert_close(found, before, atol=5e-3, rtol=0)


# ---- of a classifier of one's own ------------------------------------------------------------------------------------


def own_network(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(144, 2)).eval()


def invert_quickly(classifier):
    return dci.invert_classifier(
        classifier, torch.rand(4, 3, classifier.size, classifier.size), schedule=QUICK, at_once=True, progress=False
    )


@pytest.fixture
def own(tmp_path):
    """(module, inverter), the inverter saved in `tmp_path`/mine; of 12 pixels, which no name would bring back."""
    module = own_network()
    inverter = invert_quickly(Classifier(module, "my cnn", size=12, mean=(0.5,) * 3, std=(0.2,) * 3))
    inverter.save(tmp_path / "mine")
    return module, inverter


def test_a_module_of_ones_own_is_given_again(own, tmp_path):
    module, inverter = own
    images = torch.rand(2, 3, 12, 12)
    with pytest.raises(ValueError, match=r"of my cnn, which was given as a module: pass it, load_inverter"):
        invkit.load_inverter(tmp_path / "mine")
    for given in (module, inverter.classifier):
        loaded = invkit.load_inverter(tmp_path / "mine", classifier=given)
        assert loaded.size == 12 and loaded.classifier.mean == (0.5,) * 3
        assert torch.equal(loaded.represent(images), inverter.represent(images))
        torch.testing.assert_close(loaded.reconstruct(images), inverter.reconstruct(images), atol=5e-3, rtol=0)


def test_another_classifier_is_refused(own, tmp_path):
    module, _ = own
    with pytest.raises(ValueError, match="has other weights .* than the my cnn that was inverted"):
        invkit.load_inverter(tmp_path / "mine", classifier=own_network(seed=1))
    with pytest.raises(ValueError, match="at 12 pixels, not 16: give size=12"):
        invkit.load_inverter(tmp_path / "mine", classifier=Classifier(PoolAnySize(), "other", size=16))
    joined = [("all but the last", module[:5]), ("last", module[5:])]
    with pytest.raises(ValueError, match="cut into other blocks"):
        invkit.load_inverter(tmp_path / "mine", classifier=Classifier(module, "my cnn", 12, 0.5, 0.2, blocks=joined))
    with pytest.raises(ValueError, match="the generator facegan, which is no classifier"):
        invkit.load_inverter("dci-facegan", classifier=module)


class PoolAnySize(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x.mean((2, 3)))


def test_a_name_comes_back_with_its_arguments_unless_its_weights_were_random(tmp_path):
    """A shipped network with its own size; a retrained one of the same name is not taken for it."""
    inverter = invert_quickly(invkit.load_classifier("glyphs-plain-0"))
    inverter.save(tmp_path)
    assert invkit.load_inverter(tmp_path).classifier.fingerprint == inverter.classifier.fingerprint
    random = invert_quickly(invkit.load_classifier("glyphs-plain-0", pretrained=False))
    random.save(tmp_path)
    with pytest.raises(ValueError, match="with random weights, which no name brings back: pass it"):
        invkit.load_inverter(tmp_path)
    loaded = invkit.load_inverter(tmp_path, classifier=random.classifier)
    assert loaded.classifier is random.classifier
    card = store.read_card(tmp_path)
    card["classifier"]["source"] = {"name": "glyphs-plain-0"}
    store.save_card(tmp_path, card)
    with pytest.raises(ValueError, match="glyphs-plain-0 has other weights"):
        invkit.load_inverter(tmp_path)


def test_a_size_of_ones_choice_comes_back():
    classifier = invkit.load_classifier("squeezenet", size=48)
    card = {"network": "squeezenet", "method": "dci", "size": 48, "classifier": identity(classifier)}
    found = find_classifier(json.loads(json.dumps(card)))
    assert (found.size, found.fingerprint) == (48, classifier.fingerprint)


def test_code_that_a_card_names_is_run_only_where_it_is_trusted(own, tmp_path, monkeypatch):
    _, inverter = own
    (tmp_path / "made_up_nets.py").write_text("ran = []\ndef net():\n    ran.append(1)\n    return made()\n")
    monkeypatch.syspath_prepend(tmp_path)
    card = store.read_card(tmp_path / "mine")
    card["classifier"]["source"] = {"name": "made_up_nets:net"}
    store.save_card(tmp_path / "mine", card)
    with pytest.raises(ValueError, match="names more than a shipped .*'made_up_nets:net'.*: pass it, .* trust=True"):
        invkit.load_inverter(tmp_path / "mine")
    assert "made_up_nets" not in sys.modules
    nets = importlib.import_module("made_up_nets")
    nets.made = lambda: inverter.classifier
    assert invkit.load_inverter(tmp_path / "mine", trust=True).size == 12 and nets.ran
    del sys.modules["made_up_nets"]


@pytest.mark.parametrize(
    "source",
    [
        {"name": "hf-hub:somebody/net"}, {"name": "timm:hf-hub:somebody/net"}, {"name": "timm:local-dir:/tmp"},
        {"name": "net.onnx"}, {"name": "../net"}, {"name": "mine"}, {"name": ""}, {"name": "timm:"},
        {"name": "timm:resnet18", "checkpoint_path": "net.pth"},
        {"name": "timm:resnet18", "pretrained_cfg": {"file": "net.pth"}},
        {"name": "torchvision:vit_b_16", "hidden_dim": 60_000},
    ],
    ids=str,
)  # fmt: skip
def test_a_card_brings_back_shipped_networks_and_those_of_two_libraries_alone(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(store.find("glyphs-plain-0"), tmp_path / "mine")
    monkeypatch.setattr("invkit.identity.load_classifier", lambda **given: pytest.fail(f"loaded {given}"))
    card = {"network": source["name"], "method": "dci", "size": 32, "classifier": {"source": source}}
    with pytest.raises(ValueError, match=r"^This inverter's card names more than [^\n]+ or trust=True makes it\.$"):
        find_classifier(card)
    monkeypatch.setattr("invkit.identity.load_classifier", lambda **given: invkit.Classifier(own_network(), size=12))
    with pytest.raises(ValueError, match="its card's source is Sequential"):
        find_classifier(card, trust=True)


def test_depths_and_batches_that_make_no_sense_get_a_sentence(own):
    _, inverter = own
    with pytest.raises(ValueError, match="my cnn can be inverted at depths 1 to 3, not 20"):
        dci.invert_classifier(inverter.classifier, torch.rand(4, 3, 12, 12), depth=20, schedule=QUICK)
    with pytest.raises(TypeError, match=r"takes batches as Callable.* \| Pool \| Tensor, not .photos.: give"):
        dci.invert_classifier(inverter.classifier, "photos", schedule=QUICK)


# ---- folders of weights that come from anywhere ----------------------------------------------------------------------


def damaged_cards():
    """(shipped name, entry of its card, other value)."""
    wrong = (None, -1, 10**9, "x", [], [[1]])
    for entry in ("method", "network", "size", "classes", "generator", "kind"):
        yield from (("ffi-glyphs-robust", entry, value) for value in wrong)
    for entry in ("shapes", "sizes", "size"):
        yield from (("dci-tiny-robust", entry, value) for value in wrong)
    for entry in ("architecture", "classes", "size", "options"):
        yield from (("glyphs-plain-0", entry, value) for value in wrong)
    yield "ffi-glyphs-robust", "generator", {"channels": [10**6] * 4}
    yield "dci-tiny-robust", "feedback", {"1": [10**9, 1.0]}
    yield "dci-tiny-robust", "feedback", {"1": [1.5, 1.0]}
    yield "dci-tiny-robust", "sizes", [[32, 10**6]] * 8
    yield from (("dci-tiny-robust", "depths", value) for value in ([99], [0], ["a"], [[1]], 7))
    for known in ({"size": 10**5}, {"source": {"name": "timm:resnet18", "num_classes": 10**6}}, [], "x"):
        yield from ((name, "classifier", known) for name in ("dci-tiny-robust", "ffi-glyphs-robust"))
    yield "glyphs-plain-0", "options", {"widths": [10**6] * 5}
    yield "glyphs-plain-0", "options", {"widths": [32], "blocks": [10**6]}


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """{shipped name: a copy of its folder}."""
    root = tmp_path_factory.mktemp("copies")
    names = ("ffi-glyphs-robust", "dci-tiny-robust", "glyphs-plain-0")
    return {name: shutil.copytree(store.find(name), root / name) for name in names}


def test_a_card_that_does_not_fit_its_weights_is_one_sentence_and_builds_nothing(copies):
    """However large it says the network is: the shapes are compared with the file's before anything is built."""
    for name, entry, value in damaged_cards():
        card = store.read_card(name) | {entry: value}
        if value is None:
            del card[entry]
        (copies[name] / "card.json").write_text(json.dumps(card))
        load = invkit.load_classifier if name == "glyphs-plain-0" else invkit.load_inverter
        with pytest.raises(ValueError, match=r"^[^\n]+$"):
            load(copies[name])


NESTED = ('{"network": ' + "[" * 900 + "]" * 900 + "}", '{"a":' * 3000 + "1" + "}" * 3000)  # which JSON could be read


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", *NESTED, "[" * 100_000, "\xff"])
def test_a_file_that_is_no_card_is_one_sentence(copies, text):
    (copies["glyphs-plain-0"] / "card.json").write_bytes(text.encode("latin-1"))
    for call in (store.read_card, invkit.load_classifier, invkit.load_inverter):
        with pytest.raises(ValueError, match=r"^[^\n]*(is no card|is damaged)[^\n]*$"):
            call(copies["glyphs-plain-0"])


@pytest.mark.parametrize("name", ["ffi-glyphs-robust", "dci-facegan", "glyphs-plain-0", "lite0"])
def test_loading_leaves_the_global_random_numbers_as_they_were(name):
    state = torch.get_rng_state()
    (invkit.load_classifier if name in ("glyphs-plain-0", "lite0") else invkit.load_inverter)(name)
    assert torch.equal(torch.get_rng_state(), state)


def test_random_weights_are_others_every_time_and_follow_the_seed():
    torch.manual_seed(3)
    first, second = (invkit.load_classifier("glyphs-plain-0", pretrained=False).fingerprint for _ in range(2))
    torch.manual_seed(3)
    assert first == invkit.load_classifier("glyphs-plain-0", pretrained=False).fingerprint != second


# ---- what is no image or no representation ---------------------------------------------------------------------------

NO_IMAGES = {
    "NaN": torch.full((1, 3, 32, 32), float("nan")), "list": [[1.0]], "array": torch.rand(1, 3, 32, 32).numpy(),
    "zero height": torch.rand(1, 3, 0, 32), "empty": torch.rand(0, 3, 32, 32),
    "bytes": torch.zeros(1, 3, 32, 32).byte(),
    "0 to 255": 255 * torch.rand(1, 3, 32, 32), "one image": torch.rand(3, 32, 32), "None": None,
    "infinite": torch.full((1, 3, 32, 32), float("inf")),
}  # fmt: skip


@pytest.mark.parametrize("what", NO_IMAGES)
def test_what_is_no_image_gets_a_sentence_from_every_call(any_kind, what):
    calls = [any_kind.represent, any_kind.reconstruct]
    if any_kind.card["method"] != "dci-gan":
        calls += [any_kind.classifier.logits, lambda images: any_kind.classifier.features(images, 1)]
    for call in calls:
        with pytest.raises((ValueError, TypeError), match=r"^[^\n]*mages[^\n]*$"):
            call(NO_IMAGES[what])


def test_what_is_no_representation_gets_a_sentence(any_kind):
    right = any_kind.represent(torch.rand(2, 3, 32, 32))
    wrong = [right * float("nan"), right + float("inf"), right[:0], right.tolist(), right.numpy(), right[0], None]
    for representation in wrong:
        with pytest.raises((ValueError, TypeError), match=r"^[^\n]+\.$"):
            any_kind.invert(representation)
    assert any_kind.invert(right.double()).dtype == torch.float32


def test_double_and_half_precision_are_taken_as_single(any_kind):
    images = torch.rand(2, 3, 40, 40)
    for dtype in (torch.float64, torch.float16):
        found = any_kind.reconstruct(images.to(dtype))
        assert found.dtype == torch.float32
    assert torch.equal(any_kind.reconstruct(images.double()), any_kind.reconstruct(images))


def test_an_owner_who_trains_on_changes_neither_what_the_classifier_computes_nor_its_statistics():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))
    module[1].running_mean.normal_()
    classifier, images = Classifier(module, size=12), torch.rand(4, 3, 12, 12)
    logits, features = classifier.logits(images), classifier.features(images, 1)
    mean = module[1].running_mean.clone()
    module.train()
    assert torch.equal(classifier.logits(images), logits) and torch.equal(classifier.features(images, 1), features)
    assert module.training and torch.equal(module[1].running_mean, mean)


class Odd(nn.Module):
    """A linear network of means that does something to its input or its output first."""

    def __init__(self, change):
        super().__init__()
        self.linear, self.change = nn.Linear(3, 2), change

    def forward(self, x):
        return self.linear(self.change(x).mean((2, 3)))


def test_models_that_are_random_or_not_finite_are_told_of_by_what_they_do():
    for noisy in (lambda x: x + torch.rand(1), lambda x: nn.functional.dropout(x + 1)):
        with pytest.raises(ValueError, match="gives other logits every time, also in eval mode: take the noise out"):
            Classifier(Odd(noisy), size=12)
    with pytest.raises(ValueError, match="gives NaN or infinity: take these out"):
        Classifier(Odd(lambda x: x * float("nan")), size=12).blocks  # noqa: B018


def test_a_model_that_changes_its_input_leaves_the_images_as_they_were():
    classifier, images = Classifier(Odd(lambda x: x.sub_(0.5)), size=12), torch.rand(1, 3, 12, 12)
    before, logits = images.clone(), classifier.logits(images)
    torch.testing.assert_close(classifier.features(images, len(classifier.blocks)), logits)
    assert torch.equal(images, before) and torch.equal(classifier.logits(images), logits)


class Doubling(nn.Module):
    """A unit that changes what it is given."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(x.mul_(2))


@pytest.mark.parametrize("by_hand", [False, True])
def test_blocks_that_change_their_input_are_given_a_copy(by_hand):
    units = [("one", Doubling()), ("two", Doubling()), ("head", nn.Sequential(nn.Flatten(), nn.Linear(432, 2)))]
    network = nn.Sequential(*(unit for _, unit in units))
    classifier = Classifier(network, size=12, blocks=units if by_hand else None)
    assert len(classifier.blocks) == 3 and any(block.in_place for block in classifier.blocks)
    images = torch.rand(2, 3, 12, 12)
    features = [classifier.features(images, depth) for depth in (1, 2, 3)]
    for block, given, returned in zip(classifier.blocks[1:], features, features[1:], strict=False):
        before = given.clone()
        assert torch.equal(block(given), returned) and torch.equal(given, before)
    assert torch.equal(features[-1], classifier.logits(images))


def test_loading_an_inverter_does_not_import_the_compiler():
    """It takes longer than the reconstruction of a photo, and initial values on no device would ask for it."""
    code = "import sys, invkit; invkit.load_inverter('dci-tiny-robust'); sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
