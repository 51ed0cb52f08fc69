"""The evaluation of an inverted generator, on a generator whose inverse is known."""

import json

import pytest
import torch
from torch import nn

from invkit import metrics
from invkit.dci.chain import ChainLossWeights
from invkit.network.classifiers import Classifier, load_classifier
from invkit.network.generators import Generator, load_generator
from invkit.optimize import invert_latents
from invkit.statistics import Interval
from study.chapters import gan_inversion, gan_inversion_page
from study.chapters.gan_inversion import TrainingPlan
from study.notebook import Study
from study.scores import Scores

SIZES = ((6, 0), (6, 0))
END = (0.0, 1.0)  # visits of the deepest inverse alone


@pytest.fixture(scope="module")
def generator():
    """4 numbers -> 2 x 16 x 16 -> 3 x 32 x 32, without noise or ReLU."""
    torch.manual_seed(0)
    first = nn.Sequential(nn.Unflatten(1, (4, 1, 1)), nn.ConvTranspose2d(4, 2, 16))
    second = nn.Sequential(nn.ConvTranspose2d(2, 3, 4, 2, 1), nn.Tanh())
    return Generator(nn.Sequential(first, second), "tiny", 4, [("first", first), ("second", second)])


def test_true_latents_are_recovered_and_others_are_not(generator):
    latents = generator.sample_latents(6)
    near = gan_inversion.recovery(generator, latents + 1e-3, latents)
    assert near.cosine.min() > 0.999 and near.r2.mean() > 0.999 and near.psnr.min() > 40
    opposite = gan_inversion.recovery(generator, -latents, latents)
    assert opposite.cosine.max() < -0.99 and opposite.r2.mean() < 0
    assert (opposite.psnr < near.psnr).all() and (opposite.perceptual > near.perceptual).all()


def test_explained_shares_average_to_r2(generator):
    latents = generator.sample_latents(20)
    found = 0.7 * latents + 0.1
    explained = gan_inversion.recovery(generator, found, latents).r2
    r2 = 1 - (found - latents).square().sum() / (latents - latents.mean(0)).square().sum()
    assert explained.mean().item() == pytest.approx(r2.item(), abs=1e-5)


def test_a_path_is_the_psnr_of_the_images(generator):
    latents = generator.sample_latents(3)
    images = gan_inversion.regenerate(generator, latents, batch=2)
    found = invert_latents(generator, images, "adam", steps=4, seed=1)
    path = gan_inversion.psnr_path(found)
    last = metrics.psnr(gan_inversion.regenerate(generator, found.estimate), images)
    assert path.shape == (5, 3) and torch.allclose(path[-1], last, atol=1e-3)


def test_from_near_the_truth_it_is_found_and_one_step_from_elsewhere_is_not_enough(generator):
    latents = generator.sample_latents(3)
    near = gan_inversion.from_near_the_truth(generator, latents, "adam", steps=200, seed=2)
    first, second = gan_inversion.from_two_random_starts(generator, latents, "adam", steps=1, seeds=(0, 1))
    assert near.psnr.min() > 40 and near.cosine.min() > 0.999
    assert max(first.psnr.max(), second.psnr.max()) < near.psnr.min()
    assert not torch.equal(first.psnr, second.psnr)


def test_the_controls_of_a_start_are_recorded_side_by_side(generator, tmp_path):
    study = Study("09_gan_inversion", "quick", tmp_path, tmp_path / "work")
    first, second, near = (Scores({"psnr": torch.full((4,), level)}) for level in (20.0, 21.0, 60.0))
    gan_inversion_page.record_start_controls(study, (first, second), near)
    kept = json.loads((tmp_path / "09_gan_inversion.results.json").read_text())
    assert kept["gain_second_start"]["value"] == pytest.approx(1) and kept["psnr_near_truth"]["value"] == 60


def test_seconds_buy_whole_steps():
    path = torch.tensor([[0.0, 0.0], [10.0, 12.0], [20.0, 22.0]])  # two steps of one second each
    bought = gan_inversion.psnr_within(path, 2.0, [0.9, 1.0, 1.9, 2.0, 50.0])
    assert bought[0] is None and [b.value for b in bought[1:]] == [11, 11, 21, 21]
    later = gan_inversion.psnr_within(path, 2.0, [1.0, 1.6], before=0.5)
    assert later[0] is None and later[1].value == 11
    with pytest.raises(ValueError, match="at least one step"):
        gan_inversion.psnr_within(path[:1], 2.0, [1.0])


def test_operations_count_every_step_and_every_latent(generator):
    plan = TrainingPlan(divide=0, synchronise=3, weights=ChainLossWeights(0, 1, 0), often=END)
    cost = gan_inversion.operations_of_plan(generator, plan, SIZES, batch=4)
    blocks = 2 * 4 * 2 * 16**2 + 2 * 16**2 * 2 * 3 * 16  # forward: each input number times its kernel
    assert cost > 3 * 4 * blocks
    assert gan_inversion.operations_of_plan(generator, plan, SIZES, batch=8) == 2 * cost
    with_cycle = TrainingPlan(divide=0, synchronise=3, weights=ChainLossWeights(0, 1, 1), often=END)
    extra = gan_inversion.operations_of_plan(generator, with_cycle, SIZES, batch=4) - cost
    assert extra == 3 * 4 * 2 * blocks  # again forward, and backward to the latent
    both = gan_inversion.operations_of_plan(
        generator, TrainingPlan(2, 3, ChainLossWeights(0, 1, 0), END), SIZES, batch=4
    )
    divided = gan_inversion.operations_of_plan(
        generator, TrainingPlan(2, 0, ChainLossWeights(0, 1, 0), END), SIZES, batch=4
    )
    assert both == cost + divided


def test_equal_compute_is_spent_to_the_last_step(generator):
    dci = TrainingPlan(2, 5, ChainLossWeights(0.1, 1, 1), (1.0, 1.0))
    compute = gan_inversion.operations_of_plan(generator, dci, SIZES, batch=4)
    direct = gan_inversion.with_compute(
        generator, TrainingPlan(0, 0, ChainLossWeights(0, 1, 0), END), SIZES, 4, compute
    )
    spent = gan_inversion.operations_of_plan(generator, direct, SIZES, batch=4)
    assert spent <= compute < spent * (direct.synchronise + 1) / direct.synchronise
    with pytest.raises(ValueError, match="give at least"):
        gan_inversion.with_compute(generator, TrainingPlan(0, 0, ChainLossWeights(0, 1, 0), END), SIZES, 4, 10.0)


def test_training_a_plan_learns_latents(generator):
    latents = generator.sample_latents(50, seed=9)
    images = gan_inversion.regenerate(generator, latents)
    trained = [
        gan_inversion.train_plan(generator, TrainingPlan(0, steps, ChainLossWeights(0, 1, 0), END), SIZES, 16, seed=1)
        for steps in (1, 60)
    ]
    first, last = (torch.cosine_similarity(gan_inversion.latents_of(t, images), latents).mean() for t in trained)
    assert last > 0.9 and last > first


def test_a_judge_finds_the_broken_images():
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    classifier = Classifier(nn.Sequential(first, head), "tiny", size=32, blocks=[("first", first), ("head", head)])
    smooth = torch.linspace(0, 1, 32).expand(60, 3, 32, 32) * (0.5 + 0.3 * torch.rand(60, 1, 1, 1))
    typical, whole = smooth.split([50, 10])
    broken = whole.clone()
    broken[..., 8:24, 8:24] = torch.rand(10, 3, 16, 16)
    judge = gan_inversion.Judge(classifier, typical, depth=1)
    before, after = judge(whole), judge(broken)
    assert before.keys() == {"features", "thumbnail"}
    assert all((after[name] > before[name]).all() for name in before)


def interval(low, high):
    return Interval((low + high) / 2, low, high, 20)


@pytest.mark.parametrize(
    ("change", "gain", "word"),
    [
        ((-2, -1), (-2, -1), "mends"),
        ((-2, -1), (-1, 0.5), "mends no better than a control"),
        ((-2, 0.1), (-2, -1), "does not mend"),
        ((1, 2), (-2, -1), "does not mend"),
    ],
)
def test_the_verdict_follows_its_rule(change, gain, word):
    changes = {"features": interval(-2, -1), "thumbnail": interval(*change)}
    against = {"norm": {"features": interval(-2, -1)}, "move": {"thumbnail": interval(*gain)}}
    assert gan_inversion.mending_verdict(changes, against) == word


# ---- which samples are defective


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_mahalanobis_of_a_gaussian_follows_its_chi_distribution():
    mixing = normal(4, 4, seed=1)
    typical, samples = normal(4000, 4) @ mixing + 3, normal(4000, 4, seed=2) @ mixing + 3
    squared = gan_inversion.mahalanobis(samples, typical, shrinkage=0).square()
    assert squared.mean().item() == pytest.approx(4, rel=0.1)  # chi-square with 4 degrees of freedom
    assert squared.var().item() == pytest.approx(8, rel=0.25)


def test_mahalanobis_knows_the_directions_that_never_vary():
    """Equally far in pixels, but one lies along the line that typical samples spread on and the other off it."""
    typical = normal(500, 1) * torch.tensor([[1.0, 1.0]]) + 0.05 * normal(500, 2, seed=1)
    along, off = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, -1.0]])
    assert gan_inversion.mahalanobis(off, typical) > 2 * gan_inversion.mahalanobis(along, typical)
    assert gan_inversion.mahalanobis(off, typical) > gan_inversion.mahalanobis(off, typical, shrinkage=0.5)


def test_fewer_samples_than_features_and_dead_channels_give_finite_scores():
    typical, samples = normal(10, 30), normal(5, 30, seed=1)
    typical[:, 0] = samples[:, 0] = 1
    assert gan_inversion.mahalanobis(samples, typical).isfinite().all()


def test_neighbour_distance_by_hand():
    typical = torch.tensor([[0.0, 0.0], [1.0, 0.0], [9.0, 9.0]])
    assert torch.allclose(
        gan_inversion.neighbour_distance(torch.tensor([[0.0, 0.0]]), typical, k=2), torch.tensor([0.5])
    )


@pytest.fixture(scope="module")
def faces():
    facegan = load_generator()
    return facegan.images(facegan.sample_latents(80)).split([64, 16])


def test_a_texture_no_face_has_shows_in_features(faces):
    typical, whole = faces
    broken = whole.clone()
    broken[..., 16:40, 16:40] = torch.rand(16, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    described = gan_inversion.pooled_features(load_classifier("lite0"), torch.cat([typical, whole, broken]), 5)
    typical, whole, broken = described.split([64, 16, 16])
    assert (gan_inversion.mahalanobis(broken, typical) > gan_inversion.mahalanobis(whole, typical)).all()


def test_a_hole_shows_in_thumbnails(faces):
    typical, whole = faces
    broken = whole.clone()
    broken[..., 16:40, 16:40] = 0
    typical, whole, broken = (gan_inversion.thumbnails(images) for images in (typical, whole, broken))
    assert (gan_inversion.neighbour_distance(broken, typical) > gan_inversion.neighbour_distance(whole, typical)).all()


def test_pooled_features_do_not_depend_on_the_batch_and_resize_on_request():
    classifier = load_classifier("lite0")
    images = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    whole = gan_inversion.pooled_features(classifier, images, 2)
    assert whole.shape == (3, 16)
    assert torch.allclose(whole, gan_inversion.pooled_features(classifier, images, 2, batch=2), atol=1e-4)
    assert not torch.allclose(whole, gan_inversion.pooled_features(classifier, images, 2, size=64), atol=1e-3)
    assert gan_inversion.pooled_features(classifier, images, len(classifier.blocks)).shape == (3, 1000)


def test_thumbnails_are_block_means():
    images = torch.arange(2 * 3 * 16 * 16.0).view(2, 3, 16, 16)
    assert torch.allclose(
        gan_inversion.thumbnails(images, 8).view(2, 3, 8, 8)[:, :, 0, 0], images[:, :, :2, :2].mean((2, 3))
    )


def test_worst_fraction_lists_the_worst_first():
    assert gan_inversion.worst_fraction(torch.tensor([3.0, 9.0, 1.0, 5.0]), 0.5).tolist() == [1, 3]
    assert len(gan_inversion.worst_fraction(torch.rand(1000), 0.05)) == 50
    assert len(gan_inversion.worst_fraction(torch.rand(10), 0.05)) == 1


def test_controls_match_the_length_and_the_move():
    latents, found = normal(20, 100), 0.7 * normal(20, 100, seed=1)
    scaled = gan_inversion.with_norm(latents, found)
    assert torch.allclose(scaled.norm(dim=1), found.norm(dim=1), rtol=1e-5)
    assert torch.allclose(torch.cosine_similarity(scaled, latents), torch.ones(20))
    moved = gan_inversion.random_move(latents, found, seed=3)
    assert torch.allclose((moved - latents).norm(dim=1), (found - latents).norm(dim=1), rtol=1e-4)
    assert torch.equal(moved, gan_inversion.random_move(latents, found, seed=3))
    assert not torch.equal(moved, gan_inversion.random_move(latents, found, seed=4))


def test_wrong_requests_name_the_fix():
    with pytest.raises(ValueError, match="typical"):
        gan_inversion.mahalanobis(torch.rand(2, 3), torch.rand(5, 4))
    with pytest.raises(ValueError, match="shrinkage"):
        gan_inversion.mahalanobis(torch.rand(2, 3), torch.rand(5, 3), shrinkage=2)
    with pytest.raises(ValueError, match="k lies"):
        gan_inversion.neighbour_distance(torch.rand(2, 3), torch.rand(5, 3), k=6)
    with pytest.raises(ValueError, match="fraction"):
        gan_inversion.worst_fraction(torch.rand(5), 0)
    with pytest.raises(ValueError, match="row by row"):
        gan_inversion.with_norm(torch.rand(2, 3), torch.rand(3, 3))
