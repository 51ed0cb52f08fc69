"""Random numbers that belong to an image: their distribution, and that they depend on nothing else."""

import torch

from invkit.dci.random_numbers import RandomNumbers


def test_numbers_are_uniform_normal_and_unrelated():
    numbers = RandomNumbers(50, seed=3)
    uniform, normal = numbers.uniform("a", 4000), numbers.normal("b", 4000)
    assert 0 <= uniform.min() and uniform.max() < 1
    counts = torch.histc(uniform, bins=20, min=0, max=1) / uniform.numel()
    assert (counts - 0.05).abs().max() < 0.003
    assert abs(normal.mean()) < 0.01 and abs(normal.std() - 1) < 0.01 and abs((normal**4).mean() - 3) < 0.1
    several = torch.cat([uniform[:25], numbers.uniform("c", 4000)[:25]])  # of images and of names
    assert (torch.corrcoef(several) - torch.eye(50)).abs().max() < 0.09  # 5.7 standard errors
    neighbours = torch.stack([uniform[:, :-1].flatten(), uniform[:, 1:].flatten()])
    assert abs(torch.corrcoef(neighbours)[0, 1]) < 0.012


def test_a_row_depends_on_its_image_the_seed_and_the_name():
    all_of_them = RandomNumbers(6, seed=1).uniform("x", 3, 5)
    assert torch.equal(RandomNumbers(2, seed=1, first=3).uniform("x", 3, 5), all_of_them[3:5])
    for other in (RandomNumbers(6, seed=2).uniform("x", 3, 5), RandomNumbers(6, seed=1).uniform("y", 3, 5)):
        assert not (other == all_of_them).any()
    assert RandomNumbers(1).normal("x", 1_000_000).isfinite().all()
