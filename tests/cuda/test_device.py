"""What holds on a GPU: the same reconstructions, stable training in bfloat16, exact resumption. Skipped without one."""

import os

import pytest
import torch
from torch import nn

from invkit.dci import synthetic
from invkit.inverters import load_inverter
from invkit.training import Player, train

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Float32 in full, and the same algorithms in every run."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)


@pytest.mark.parametrize("name", ["dci-tiny-standard", "dci-lite0", "ffi-glyphs-standard", "ffi-tiny-robust"])
def test_shipped_inverters_agree_with_the_cpu(name):
    inverter = load_inverter(name)
    images = synthetic.dead_leaves(2, inverter.size, seed=5)
    for depth in {inverter.depths[0], inverter.depths[-1]}:
        with torch.inference_mode():
            representation = inverter.to("cpu").represent(images, depth=depth)
            expected = inverter.invert(representation, depth=depth)
            found = inverter.to("cuda").invert(representation.cuda(), depth=depth).cpu()
        assert (found - expected).abs().max() <= 1e-3


def test_leaves_and_crops_are_those_of_the_cpu():
    ours, theirs = synthetic.draw_pool(32, 96, seed=3), synthetic.draw_pool(32, 96, seed=3, device="cuda")
    assert theirs.images.is_cuda
    # a pixel on the edge of two leaves may belong to the other one
    assert ((ours.images.int() - theirs.images.cpu().int()).abs() > 2).float().mean() < 0.01
    crops = theirs.batch(7, 8, 64)
    assert crops.is_cuda and (ours.batch(7, 8, 64) - crops.cpu()).abs().mean() < 0.01


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def denoise(module, images, step):
    return (module(images + 0.1 * torch.randn_like(images)) - images).square().mean(), {}


def batches(step):
    return torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(step))


def test_training_in_bfloat16_is_stable_for_200_steps(tmp_path):
    done = train(
        Player("denoiser", network(), denoise, 3e-3, clip=1.0), batches, steps=200, folder=tmp_path, precision="bf16",
        progress=False,
    )  # fmt: skip
    losses = [means["loss"] for _, means in done.history]
    assert [step for step, _ in done.history] == [50, 100, 150, 200]  # scalars leave the device every 50 steps
    assert losses[-1] < losses[0]
    assert all(tensor.isfinite().all() for tensor in done.ema["denoiser"].values())


def test_a_stopped_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path):
    def run(folder, given):
        player = Player("denoiser", network(), denoise, 1e-3, clip=1.0)
        return train(player, given, steps=40, folder=folder, progress=False, checkpoint_every_steps=5)

    def stops(step):
        if step == 17:
            raise RuntimeError("stop")
        return batches(step)

    with pytest.raises(RuntimeError, match="stop"):
        run(tmp_path / "stopped", stops)
    stopped, undisturbed = run(tmp_path / "stopped", batches), run(tmp_path / "undisturbed", batches)
    for name, tensor in undisturbed.ema["denoiser"].items():
        assert torch.equal(stopped.ema["denoiser"][name], tensor)


def test_a_recipe_runs_on_the_device_and_its_inverter_on_both(tmp_path):
    from recipes import table

    os.environ.pop("ACCELERATE_USE_CPU", None)
    for name in ("dci-tiny-standard", "ffi-glyphs-standard"):
        card = table.train_recipe(name, tmp_path / name, device="cuda", minutes=0.5)
        assert card["device"] == torch.cuda.get_device_name()
        inverter = load_inverter(tmp_path / name)
        images = synthetic.dead_leaves(2, inverter.size, seed=5)
        assert (inverter.reconstruct(images) - inverter.to("cuda").reconstruct(images.cuda()).cpu()).abs().max() < 1e-2


def test_a_frozen_network_in_bfloat16_gives_the_same_features_roughly():
    from invkit.network.classifiers import load_classifier
    from recipes.dci import low_precision

    classifier = load_classifier("tiny-standard").to("cuda")
    coarse, images = low_precision(classifier), synthetic.dead_leaves(4, 64, seed=1, device="cuda")
    assert coarse is not classifier
    for depth in (1, 4):
        exact, near = classifier.features(images, depth), coarse.features(images, depth).float()
        assert (exact - near).norm() < 0.03 * exact.norm()
