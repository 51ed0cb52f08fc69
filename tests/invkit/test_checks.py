"""Arguments of another kind than a public function takes: one sentence says which, before anything is computed."""

import pytest
import torch
from torch import nn

import invkit
from invkit import dci, ffi, leakage, metrics, training
from invkit.checks import check_whole_number
from invkit.dci import synthetic
from invkit.dci.invert import synthetic_for
from invkit.store import one_line, quoted

IMAGES = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
NESTED = {
    "nested": torch.nested.nested_tensor([torch.rand(3, 16, 16), torch.rand(3, 12, 16)]),
    "even": torch.nested.nested_tensor([torch.rand(3, 16, 16)] * 2),
    "jagged": torch.nested.nested_tensor([torch.rand(3, 16, 16), torch.rand(5, 16, 16)], layout=torch.jagged),
}


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(256, 5))


CLASSIFIER = invkit.Classifier(network(), "small", size=16)
POOL = synthetic.draw_pool(4, 16)


@pytest.fixture(scope="module")
def inverter():
    return dci.invert_classifier(CLASSIFIER, POOL, depth=2, schedule=dci.Schedule(1, 1), progress=False)


def player(**changes):
    settings = {"name": "p", "module": nn.Linear(2, 1), "loss": lambda module, x, step: (module(x).mean(), {})}
    return training.Player(**settings | {"lr": 1e-3} | changes)


CALLS = {
    "train_inverter": lambda **given: invkit.train_inverter(CLASSIFIER, IMAGES, **given),
    "invert_classifier": lambda **given: dci.invert_classifier(CLASSIFIER, POOL, **given),
    "ffi": lambda **given: ffi.train_inverter(CLASSIFIER, IMAGES, **{"steps": 2} | given),
    "train": lambda **given: training.train(player(), lambda step: torch.ones(2, 2), **{"steps": 2} | given),
    "Schedule": dci.Schedule,
    "ChainLossWeights": dci.ChainLossWeights,
    "GeneratorLossWeights": ffi.GeneratorLossWeights,
    "Player": player,
    "load_classifier": invkit.load_classifier,
    "load_inverter": lambda **given: invkit.load_inverter("ffi-glyphs-robust", **given),
    "pairs": lambda **given: ffi.pairs(CLASSIFIER, IMAGES, **given),
    "condition": lambda **given: ffi.condition(torch.zeros(1, 5), **given),
    "retrieval_accuracy": lambda **given: metrics.retrieval_accuracy(IMAGES, IMAGES, **given),
}
WRONG = [
    ("train_inverter", {"size": "8"}, "takes size as int | None, not '8': give it so."),
    ("train_inverter", {"size": True}, "takes size as int | None, not True"),
    (
        "train_inverter",
        {"size": NESTED["nested"]},
        "takes size as int | None, not a tensor that is sparse, nested",
    ),
    ("train_inverter", {"depths": "all"}, r"takes depths as int | Sequence\[int\] | None, not 'all'"),
    ("train_inverter", {"progress": "no"}, "takes progress as bool, not 'no'"),
    ("train_inverter", {"blocks": 5}, "unexpected keyword argument 'blocks'; it takes classifier, images, minutes"),
    ("invert_classifier", {"sizes": 5}, r"takes sizes as Sequence\[.*\] | None, not 5"),
    ("invert_classifier", {"schedule": "long"}, "takes schedule as Schedule"),
    ("ffi", {"steps": "2"}, "takes steps as int, not '2'"),
    ("ffi", {"batch": 2.5}, "takes batch as int, not 2.5"),
    ("ffi", {"generator": "lean"}, "takes generator as dict | None, not 'lean'"),
    ("ffi", {"shrink": float("nan")}, "takes shrink as float, not nan"),
    ("train", {"ema": "0.9"}, "takes ema as float | None, not '0.9'"),
    ("train", {"warmup": [1]}, "takes warmup as float, not list"),
    ("train", {"checkpoint_every_steps": True}, "takes checkpoint_every_steps as int | None, not True"),
    ("Schedule", {"divide": "3"}, "takes divide as int, not '3'"),
    ("Schedule", {"often": (1.0, "a")}, "takes often as "),
    ("Schedule", {"cycle_every": 0}, "cycle_every must be a whole number of at least 1, not 0"),
    ("ChainLossWeights", {"block": "1"}, "takes block as "),
    ("GeneratorLossWeights", {"squares": 4}, "takes squares as "),
    ("Player", {"lr": "1e-3"}, "takes lr as "),
    ("Player", {"module": 3}, "takes module as "),
    ("Player", {"loss": None}, "takes loss as "),
    ("load_classifier", {"pretrained": "no"}, "takes pretrained as bool, not 'no': give it so."),
    ("load_classifier", {"cuts": 5}, r"takes cuts as Sequence\[str\] | None, not 5"),
    ("load_classifier", {"weights": 5}, "takes weights as str | Path | None, not 5"),
    ("load_classifier", {"output": 1.5}, "takes output as str | int | None, not 1.5"),
    ("load_inverter", {"trust": "no"}, "takes trust as bool, not 'no': give it so."),
    ("load_inverter", {"classifier": "lite0"}, "takes classifier as Classifier | nn.Module | None, not 'lite0'"),
    ("pairs", {"size": IMAGES}, "takes size as int | None, not torch.float32"),
    ("pairs", {"progress": IMAGES}, "takes progress as bool, not torch.float32"),
    ("condition", {"kind": None}, "takes kind as str, not None"),
    ("retrieval_accuracy", {"top": IMAGES}, "top must be a whole number of at least 1"),
    ("retrieval_accuracy", {"labels": "text"}, "takes labels as Tensor | Sequence | None, not 'text'"),
    ("train", {"minutes": 1e12, "steps": None}, "minutes must be above 0 and at most a million, not 1000000000000.0"),
]


@pytest.mark.parametrize(
    ("name", "given", "sentence"), WRONG, ids=[f"{name}-{[*given][0]}" for name, given, _ in WRONG]
)
def test_an_argument_of_another_kind_is_one_sentence(name, given, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence.replace(" | ", r" \| ")) as raised:
        CALLS[name](**given)
    assert "\n" not in str(raised.value) and str(raised.value).endswith(".")


@pytest.mark.parametrize("changes", [{"lr": -1.0}, {"lr": float("inf")}, {"weight_decay": -1.0}, {"betas": (0.9, 1.0)}])
def test_a_player_s_rates_out_of_range_are_one_sentence(changes):
    with pytest.raises(ValueError, match="^lr and weight_decay are 0 or more, and betas below 1: give p others.$"):
        training.train(player(**changes), lambda step: torch.ones(2, 2), steps=2, progress=False)


@pytest.mark.parametrize("blocks", [5, "stem", [1], [("a", nn.ReLU(), 3)], object()], ids=["5", "text", "1", "3", "it"])
def test_blocks_that_are_no_pairs_are_one_sentence(blocks):
    with pytest.raises(TypeError, match="^blocks are pairs of a name and a module, in order, not .*: give these.$"):
        invkit.Classifier(network(), size=16, blocks=blocks)


def test_a_card_s_text_is_no_truth_value(tmp_path):
    """A card whose classifier was made with pretrained="no" is refused, not loaded with its trained weights."""
    inverter = invkit.load_inverter("ffi-glyphs-robust")
    known = inverter.card["classifier"]
    inverter.card["classifier"] = known | {"source": {"name": inverter.classifier.name, "pretrained": "no"}}
    inverter.save(tmp_path)
    with pytest.raises(ValueError, match="takes pretrained as bool, not 'no'"):
        invkit.load_inverter(tmp_path)


@pytest.mark.parametrize("kind", NESTED)
def test_nested_images_are_one_sentence(kind, inverter):
    given, labels = NESTED[kind], torch.zeros(2, dtype=torch.int64)
    calls = [
        CLASSIFIER.preprocess, CLASSIFIER.logits, lambda x: CLASSIFIER.features(x, 1), inverter.represent,
        inverter.invert, inverter.reconstruct, lambda x: metrics.psnr(x, IMAGES[:2]), metrics.perceptual_features,
        lambda x: metrics.retrieval_ranks(IMAGES[:2], IMAGES[:2], labels=x), lambda x: ffi.pairs(CLASSIFIER, x),
        lambda x: invkit.train_inverter(CLASSIFIER, x), lambda x: ffi.train_inverter(CLASSIFIER, x, steps=1),
        lambda x: dci.invert_classifier(CLASSIFIER, x), lambda x: dci.add_feedback(inverter, x),
        lambda x: invkit.attacks.pgd(CLASSIFIER, x, labels), lambda x: invkit.attacks.pgd(CLASSIFIER, IMAGES[:2], x),
        lambda x: invkit.optimize.invert_features(CLASSIFIER, x, 1), lambda x: metrics.distance(IMAGES[:2], x),
        lambda x: metrics.distance(x, IMAGES[:2]), leakage.mean_colour_psnr, ffi.condition,
        lambda x: ffi.logits_of(CLASSIFIER, x), lambda x: synthetic_for(CLASSIFIER, x), invkit.optimize.total_variation,
    ]  # fmt: skip
    for call in calls:
        with pytest.raises((TypeError, ValueError), match="nested") as raised:
            call(given)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("feedback", ["no", 1, None])
def test_feedback_is_true_or_false(feedback, inverter):
    with pytest.raises(TypeError, match="^feedback is True or False, not "):
        inverter.reconstruct(IMAGES, feedback=feedback)


def test_a_value_is_cut_in_one_place():
    long = "x" * 5000
    assert quoted(long) == one_line(quoted(long)) and len(quoted(long)) == 201
    assert quoted(list(range(10_000))).startswith("[0, 1, 2") and len(quoted(list(range(10_000)))) == 201
    assert quoted(torch.zeros(3, 3)).count("\n") == 0 and quoted("short") == "'short'"
    with pytest.raises(ValueError, match="not 'x{99}…x{99}'.$"):
        check_whole_number(long, 1, "n")


def test_a_truth_value_is_no_number():
    with pytest.raises(ValueError, match="n must be a whole number of at least 0, not True"):
        check_whole_number(True, 0, "n")


@pytest.mark.parametrize(
    "other", ["text", None, IMAGES.tolist(), IMAGES.byte(), IMAGES[0, 0], IMAGES[:3], IMAGES > 0.5]
)
def test_a_distance_is_one_between_float_images_that_fit(other):
    """Of bytes, 3 - 5 would be 254."""
    for pair in ((IMAGES, other), (other, IMAGES)):
        with pytest.raises(ValueError, match="^Give float images .*one shape each, not [^\n]*\\.$"):
            metrics.distance(*pair)
    ones = torch.ones(3, 16, 16)
    assert torch.equal(metrics.distance(torch.stack([ones, ones - 0.5])[None], ones), torch.tensor([[0.0, 0.5]]))
