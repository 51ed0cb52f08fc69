"""BigGAN conditioned on logits: published sizes, norms, what depends on what, folding."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from invkit.ffi.biggan import Attention, LogitGenerator, ProjectionDiscriminator, double_and_convolve, published


def pair_of_networks(**options):
    torch.manual_seed(0)
    generator = LogitGenerator(16, 10, channels=(16, 16, 8), noise_dim=12, shared_dim=8, hidden=16, **options)
    discriminator = ProjectionDiscriminator(16, 10, channels=(8, 16))
    return generator, discriminator


def numbers(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("size", "width", "classes", "least", "most"),
    [
        # The CIFAR generator is told as 4.2 to 4.7 million, depending on the shared embedding.
        (32, 64, 10, (4.2e6, 4.0e6), (4.7e6, 4.4e6)),
        # Brock et al. 2018, table 1: 158.3 million at 128 pixels, both together; their authors' code prints 70,433,988
        # and 87,982,370.
        (128, 96, 1000, (70_433_988, 87_982_370), (70_433_988, 87_982_370)),
    ],
)
def test_published_networks_have_the_published_size(size, width, classes, least, most):
    of_generator, of_discriminator = published(size, width)
    with torch.device("meta"):
        generator = LogitGenerator(condition_dim=classes, spectral=False, **of_generator)
        discriminator = ProjectionDiscriminator(condition_dim=classes, spectral=False, **of_discriminator)
    assert least[0] <= numbers(generator) <= most[0]
    assert least[1] <= numbers(discriminator) <= most[1]


def test_published_networks_draw_and_judge():
    of_generator, of_discriminator = published(64, 8)
    generator = LogitGenerator(condition_dim=5, **of_generator).eval()
    images = generator(torch.randn(2, generator.noise_dim), torch.randn(2, 5))
    assert images.shape == (2, 3, 64, 64) and 0 <= images.min() and images.max() <= 1
    assert ProjectionDiscriminator(condition_dim=5, **of_discriminator)(images, torch.randn(2, 5)).shape == (2,)
    with pytest.raises(ValueError, match="32, 64, 128"):
        published(48, 64)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_lean_networks_fit_every_size(size):
    generator, discriminator = LogitGenerator(size, 10), ProjectionDiscriminator(size, 10)
    images = generator(torch.randn(2, generator.noise_dim), torch.randn(2, 10))
    assert images.shape == (2, 3, size, size) and discriminator(images, torch.randn(2, 10)).shape == (2,)


def test_spectral_norms_are_one():
    generator, discriminator = pair_of_networks(attention=16)
    for _ in range(20):  # the estimate of the norm settles as the network is used
        images = generator(torch.randn(4, 12), torch.randn(4, 10))
        discriminator(images, torch.randn(4, 10))
    normed = [part for net in (generator, discriminator) for part in net.modules() if is_parametrized(part, "weight")]
    assert len(normed) > 20
    for part in normed:
        assert torch.linalg.matrix_norm(part.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.05)


def test_gradients_reach_every_parameter_of_both():
    generator, discriminator = pair_of_networks(attention=16)
    nn.init.constant_(generator.attention.gain, 0.5)  # away from the zeros of the start
    nn.init.normal_(generator.leave.weight, std=0.1)
    z = torch.randn(8, 10)
    score = discriminator(generator(torch.randn(8, 12), z), z)
    score.square().sum().backward()
    for network in (generator, discriminator):
        for name, p in network.named_parameters():
            if p.requires_grad:
                assert p.grad is not None and p.grad.abs().max() > 0, name
    still = {name for name, p in generator.named_parameters() if not p.requires_grad}
    assert still == {"coarse.linear.weight", "coarse.linear.bias"}


def test_images_change_with_logits_and_with_noise():
    generator, discriminator = pair_of_networks()
    nn.init.normal_(generator.leave.weight, std=0.1)
    generator.eval()
    noise, z = torch.randn(2, 12), torch.randn(2, 10)
    image = generator(noise, z)
    assert torch.equal(image, generator(noise, z))
    assert (image - generator(noise.flip(0), z)).abs().max() > 1e-3
    assert (image - generator(noise, z.flip(0))).abs().max() > 1e-3
    for chunk in range(3):  # each of the seed's and the blocks' own chunks counts
        other = noise.clone()
        other[:, 4 * chunk : 4 * chunk + 4] += 1
        assert (image - generator(other, z)).abs().max() > 1e-4
    assert (discriminator(image, z) - discriminator(image, z.flip(0))).abs().max() > 1e-4


def test_discriminator_is_a_linear_map_plus_the_projection():
    """D(x, z) = w·h(x) + <V z, h(x)>: linear in z, and without logits w·h(x) alone."""
    _, discriminator = pair_of_networks()
    discriminator.eval()
    x, z = torch.rand(3, 3, 16, 16), torch.randn(3, 10)
    alone = discriminator(x, torch.zeros(3, 10))
    projected = discriminator(x, z) - alone
    torch.testing.assert_close(discriminator(x, 2 * z) - alone, 2 * projected, atol=1e-5, rtol=1e-4)
    assert projected.abs().max() > 1e-4


def test_doubling_and_convolving_at_once_is_the_same():
    x, w, b = (torch.randn(*shape, dtype=torch.double) for shape in ((2, 5, 6, 4), (7, 5, 3, 3), (7,)))
    separately = nn.functional.conv2d(nn.functional.interpolate(x, scale_factor=2), w, b, padding=1)
    torch.testing.assert_close(double_and_convolve(x, w, b), separately)


def test_attention_starts_as_the_identity():
    block, x = Attention(16, lambda module: module), torch.randn(2, 16, 4, 4)
    assert torch.equal(block(x), x)
    nn.init.ones_(block.gain)
    assert (block(x) - x).abs().max() > 1e-3


def test_standing_statistics_are_those_of_the_batches():
    generator, _ = pair_of_networks()
    pairs = [(torch.randn(16, 12), torch.randn(16, 10)) for _ in range(4)]
    seen = []
    hook = generator.norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    generator.set_standing_statistics(pairs)
    hook.remove()
    assert not generator.training
    mean = torch.stack([h.mean((0, 2, 3)) for h in seen]).mean(0)
    torch.testing.assert_close(generator.norm.running_mean, mean, atol=1e-5, rtol=1e-4)
    assert generator.norm.momentum == 0.1  # as before


@pytest.mark.parametrize("coarse", [{}, {"coarse_hidden": 16}, {"coarse_hidden": 16, "coarse_linear": False}])
def test_folded_it_is_the_same_map_without_parametrisations(coarse):
    generator, _ = pair_of_networks(**coarse)
    generator.whitening.fit(3 + 5 * torch.randn(100, 10))
    nn.init.normal_(generator.leave.weight, std=0.1)
    generator.set_standing_statistics([(torch.randn(16, 12), torch.randn(16, 10))])
    noise, z = torch.randn(4, 12), 3 + 5 * torch.randn(4, 10)
    before = generator(noise, z)
    options = generator.fold()
    torch.testing.assert_close(generator(noise, z), before, atol=1e-4, rtol=1e-4)
    again, _ = pair_of_networks(**coarse, **options)
    again.load_state_dict(generator.state_dict())
    torch.testing.assert_close(again.eval()(noise, z), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 24}, "8, 16, 32"),
        ({"size": 32, "noise_dim": 10}, "multiple of 4"),
        ({"size": 32, "channels": (8, 8)}, "4 numbers of channels"),
        ({"size": 32, "attention": 7}, "sides"),
        ({"size": 32, "hidden": None}, "hidden layer"),
    ],
)
def test_generators_that_do_not_fit_together_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        LogitGenerator(condition_dim=10, **options)


def test_discriminators_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="3 halvings"):
        ProjectionDiscriminator(32, 10, channels=(8, 8), downs=3)
    with pytest.raises(ValueError, match="sides"):
        ProjectionDiscriminator(32, 10, attention=5)
