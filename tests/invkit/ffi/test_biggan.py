"""Inverse blocks: every change of resolution, a linear start. BigGAN: published sizes, norms, what depends on what."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from invkit.dci.inverse_block import InverseBlock, ResidualBlock
from invkit.ffi.biggan import Attention, LogitGenerator, ProjectionDiscriminator, double_and_convolve, published
from invkit.ffi.whitening import CoarseRegressor, Whitening

SHAPES = [
    ((8, 8, 8), (8, 8, 8)),  # same size
    ((8, 4, 4), (6, 8, 8)),  # up
    ((8, 4, 4), (3, 16, 16)),  # up by four
    ((8, 4, 4), (3, 7, 7)),  # up, odd: cropped
    ((6, 8, 8), (8, 4, 4)),  # down
    ((8, 4, 4), (10,)),  # to a vector
    ((10,), (8, 4, 4)),  # from a vector
    ((10,), (12,)),  # between vectors
]


@pytest.mark.parametrize(("source", "target"), SHAPES)
def test_shapes_and_gradients(source, target):
    torch.manual_seed(0)
    block = InverseBlock(source, target, width=8, blocks=2)
    for p in block.parameters():  # away from the zeros of the start
        nn.init.normal_(p, std=0.1)
    y = torch.randn(3, *source, requires_grad=True)
    h = block(y)
    assert h.shape == (3, *target)
    h.square().sum().backward()
    assert y.grad.abs().max() > 0
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())


@pytest.mark.parametrize(("source", "target"), SHAPES)
def test_starts_as_a_linear_map(source, target):
    torch.manual_seed(0)
    block = InverseBlock(source, target, width=8)
    a, b, zero = torch.randn(1, *source), torch.randn(1, *source), torch.zeros(1, *source)
    torch.testing.assert_close(block(a + b) + block(zero), block(a) + block(b), atol=1e-5, rtol=1e-4)


def test_upsampling_starts_as_nearest_neighbour():
    torch.manual_seed(0)
    h = InverseBlock((4, 4, 4), (3, 8, 8), width=8)(torch.randn(2, 4, 4, 4))
    cells = h.unfold(2, 2, 2).unfold(3, 2, 2)
    assert (cells.flatten(4).std(-1) < 1e-6).all() and h.std() > 0.05


def test_maps_of_other_sizes_work():
    assert InverseBlock((4, 8, 8), (3, 16, 16), width=8)(torch.randn(1, 4, 5, 6)).shape == (1, 3, 10, 12)


def test_calibration_sets_the_units():
    torch.manual_seed(0)
    block = InverseBlock((4, 8, 8), (3, 8, 8), width=8)
    target = 5 + torch.tensor([0.1, 1.0, 10.0]).view(1, 3, 1, 1) * torch.randn(64, 3, 8, 8)
    block.calibrate(torch.randn(64, 4, 8, 8), target)
    torch.testing.assert_close(block.out_std.flatten(), torch.tensor([0.1, 1.0, 10.0]), rtol=0.1, atol=0)
    torch.testing.assert_close(block.out_mean.flatten(), torch.full((3,), 5.0), rtol=0.1, atol=0)
    dead = torch.cat([torch.zeros(4, 1, 8, 8), torch.randn(4, 3, 8, 8)], 1)
    block.calibrate(dead, torch.randn(4, 3, 8, 8))
    assert torch.isfinite(block(dead)).all()


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="vectors .* or maps"):
        InverseBlock((4, 8), (3, 8, 8), width=8)


@pytest.mark.parametrize(
    ("source", "target"), [((8, 8, 8), (8, 8, 8)), ((3, 12, 12), (8, 4, 4)), ((3, 8, 8), (8, 4, 4)), ((8, 4, 4), (5,))]
)
def test_without_hidden_maps_it_is_one_convolution(source, target):
    torch.manual_seed(0)
    block = InverseBlock(source, target, width=0, blocks=0)
    (weight, bias), h = block.parameters(), torch.randn(2, *source)
    assert block(h).shape == (2, *target)
    block.calibrate(torch.randn(20, *source) * 3 + 1, torch.randn(20, *target) * 2 - 1)
    units = ((h - block.in_mean) / block.in_std, block.out_std, block.out_mean)
    again = F.conv2d(F.leaky_relu(units[0], 0.2), weight, bias, block.skip.stride, block.skip.padding)
    torch.testing.assert_close(block(h), (again * units[1] + units[2]).reshape(2, *target))


def test_between_vectors_the_one_convolution_is_a_matrix():
    block = InverseBlock((5,), (4,), width=0)
    assert block.skip.weight.shape == (4, 5, 1, 1) and block(torch.randn(2, 5)).shape == (2, 4)


def test_one_convolution_does_not_enlarge():
    with pytest.raises(ValueError, match="give a width above 0"):
        InverseBlock((8, 4, 4), (3, 8, 8), width=0)


def test_residual_block_starts_as_the_identity():
    x = torch.randn(2, 8, 5, 5)
    assert torch.equal(ResidualBlock(8)(x), x)


# ---- BigGAN, conditioned on logits -----------------------------------------------------------------------------------


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


def test_whitening_is_invertible_and_whitens():
    torch.manual_seed(0)
    scale = torch.logspace(1.5, -0.5, 20)
    z = 3 + torch.randn(4000, 20) * scale @ torch.linalg.qr(torch.randn(20, 20)).Q
    whitening = Whitening(20)
    torch.testing.assert_close(whitening(z), z)  # the identity, until fitted
    whitening.fit(z, shrink=1e-6)
    white = whitening(z)
    torch.testing.assert_close(white.T.cov(), torch.eye(20), atol=0.02, rtol=0)
    torch.testing.assert_close(whitening.inverse(white), z, atol=1e-2, rtol=1e-3)
    whitening.fit(torch.eye(20), shrink=0.01)  # one-hot vectors have no variance along their sum
    assert torch.isfinite(whitening.matrix).all() and torch.linalg.matrix_rank(whitening.matrix) == 20
    with pytest.raises(ValueError, match="shrink"):
        whitening.fit(z, shrink=0)


def test_coarse_images_are_a_ridge_regression():
    torch.manual_seed(0)
    z, weight = torch.randn(500, 10), torch.randn(10, 48)
    images = (z @ weight + 0.5).view(-1, 3, 4, 4)
    reader = CoarseRegressor(10, 4)
    reader.fit(z, images, ridge=1e-6)
    torch.testing.assert_close(reader(z, z.softmax(1)), images, atol=1e-3, rtol=1e-3)


def test_the_network_of_a_coarse_reader_sees_the_class():
    torch.manual_seed(0)
    reader, white = CoarseRegressor(10, 4, hidden=16), torch.randn(6, 10)
    nn.init.normal_(reader.network[-1].weight)
    one, other = (F.one_hot(torch.full((6,), label), 10).float() for label in (0, 1))
    assert not torch.allclose(reader(white, one), reader(white, other))


def test_a_coarse_reader_without_a_linear_part_is_its_network_and_starts_from_the_mean():
    torch.manual_seed(0)
    reader, white, images = CoarseRegressor(10, 4, hidden=16, linear=False), torch.randn(6, 10), torch.rand(6, 3, 4, 4)
    reader.fit(white, images)
    torch.testing.assert_close(reader(white, white.softmax(1)), images.mean(0).expand(6, 3, 4, 4))
    assert reader.first_layers() == [reader.network[0]]
    with pytest.raises(ValueError, match="give the network a width"):
        CoarseRegressor(10, 4, linear=False)


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
