"""Images, maps and logits of eight wrong kinds, from every public call that takes them: a result, or one sentence.

The sentence has to come from the library, not from what it is built on.
"""

import traceback
from pathlib import Path

import pytest
import torch

import invkit
from invkit import attacks, ffi, leakage, metrics, optimize
from invkit.dci import synthetic

IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.zeros(2, dtype=torch.long)
LIBRARY = Path(invkit.__file__).parent


def with_infinity(x):
    x = x.clone(memory_format=torch.contiguous_format)
    x.view(-1)[0] = float("inf")
    return x


WRONG = {
    "not a number": lambda x: x * float("nan"),
    "infinite": with_infinity,
    "an array": lambda x: x.numpy(),
    "a list": lambda x: x.tolist(),
    "double precision": lambda x: x.double(),
    "of zero height": lambda x: x[..., :0, :] if x.ndim == 4 else x[..., :0],
    "none at all": lambda x: x[:0],
    "nothing": lambda x: None,
}


@pytest.fixture(scope="module")
def calls():
    """{name: (call, an argument that it takes)}."""
    classifier, logits = invkit.load_classifier("glyphs-standard-0"), invkit.load_inverter("ffi-glyphs-standard")
    blocks = invkit.load_inverter("dci-tiny-standard")
    large = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    known, maps = classifier.logits(IMAGES), blocks.represent(large, 3)
    bytes_ = (255 * torch.rand(4, 3, 64, 64)).byte()
    return {
        "Classifier.logits": (classifier.logits, IMAGES),
        "Classifier.features": (lambda x: classifier.features(x, 2), IMAGES),
        "LogitInverter.represent": (logits.represent, IMAGES),
        "LogitInverter.invert": (logits.invert, known),
        "LogitInverter.reconstruct": (logits.reconstruct, IMAGES),
        "ClassifierInverter.represent": (lambda x: blocks.represent(x, 3), large),
        "ClassifierInverter.invert": (lambda x: blocks.invert(x, 3), maps),
        "ClassifierInverter.reconstruct": (lambda x: blocks.reconstruct(x, 3), large),
        "search": (lambda x: blocks.reconstruct(x, 3, search=1), large),
        "psnr": (lambda x: metrics.psnr(x, IMAGES), IMAGES),
        "ssim": (lambda x: metrics.ssim(x, IMAGES), IMAGES),
        "distance": (lambda x: metrics.distance(x, IMAGES), IMAGES),
        "perceptual": (lambda x: metrics.perceptual(x, IMAGES), IMAGES),
        "perceptual_squeezenet": (lambda x: metrics.perceptual_squeezenet(x, IMAGES), IMAGES),
        "perceptual_features": (metrics.perceptual_features, IMAGES),
        "perceptual_features, SqueezeNet": (lambda x: metrics.perceptual_features(x, True), IMAGES),
        "retrieval_ranks": (lambda x: metrics.retrieval_ranks(x, IMAGES), IMAGES),
        "retrieval_accuracy": (lambda x: metrics.retrieval_accuracy(x, IMAGES), IMAGES),
        "thumbnail": (lambda x: metrics.thumbnail(x, 8), IMAGES),
        "invert_features": (lambda x: optimize.invert_features(classifier, x, len(classifier.blocks), steps=1), known),
        "total_variation": (optimize.total_variation, IMAGES),
        "pgd": (lambda x: attacks.pgd(classifier, x, LABELS, steps=1), IMAGES),
        "clean_accuracy": (lambda x: attacks.clean_accuracy(classifier, x, LABELS), IMAGES),
        "robust_accuracy": (lambda x: attacks.robust_accuracy(classifier, x, LABELS, steps=1), IMAGES),
        "mean_colour_psnr": (leakage.mean_colour_psnr, IMAGES),
        "condition": (lambda x: ffi.condition(x, "logits"), known),
        "Pool": (lambda x: synthetic.Pool(x).batch(0, 1, 32), bytes_),
    }


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_images_is_said_in_one_sentence_of_the_library(calls, kind):
    foreign = []
    for name, (call, right) in calls.items():
        if kind in ("not a number", "infinite") and not right.dtype.is_floating_point:
            continue
        wrong = WRONG[kind](right)
        try:
            call(wrong)
        except Exception as error:
            raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
            if LIBRARY not in raised_in.parents or "\n" in str(error) or not str(error).endswith((".", "?")):
                foreign.append(f"{name}: {raised_in.name}: {type(error).__name__}: {error}")
    assert not foreign
