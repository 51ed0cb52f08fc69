"""Reading factors: known answers for the scores, the linear readers, the small network and the share of the noise."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from invkit.data import glyphs
from invkit.network.classifiers import Classifier
from recipes import factor_regressor
from study.chapters import invariances, invariances_page


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def squares(n, seed=0):
    """Coloured squares on black: their place, colour and whether they are large."""
    g = torch.Generator().manual_seed(seed)
    place, colour = torch.rand(n, 1, generator=g) * 16, 0.3 + 0.7 * torch.rand(n, 3, generator=g)
    large = torch.randint(0, 2, (n,), generator=g)
    x = torch.arange(24.0)
    inside = ((x - 4 - place).abs() < 2.5 + 2 * large[:, None]).float()
    images = colour[:, :, None, None] * inside[:, None, None, :] * ((x - 12).abs() < 4).float()[:, None]
    return images, {"colour": colour, "x": place, "large": large}


# ---- factors ---------------------------------------------------------------------------------------------------------


def test_colours_give_hue_contrast_and_polarity():
    named = factor_regressor.named_factors(glyphs.draw(50, seed=1))
    assert list(named)[:6] == ["ink colour", "ink hue", "ground colour", "ground hue", "contrast", "polarity"]
    assert named["x"].shape == (50, 1) and named["font"].dtype == torch.int64
    drawn = glyphs.draw(2, seed=1, ink=torch.tensor([1.0, 1, 1]), ground=torch.tensor([0.0, 0, 0]))
    white = factor_regressor.named_factors(drawn)
    assert white["contrast"].allclose(torch.ones(2, 1)) and white["polarity"].tolist() == [1, 1]
    assert white["ink hue"].allclose(torch.zeros(2, 2), atol=1e-6)


def test_chroma_turns_with_the_hue_and_leaves_out_grey():
    red, green, grey = factor_regressor.chroma(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.5, 0.5, 0.5]]))
    assert red.allclose(torch.tensor([1.0, 0])) and (red @ green).item() == pytest.approx(-0.5)
    assert grey.norm() < 1e-6


def test_data_without_factors_is_refused():
    drawn = glyphs.draw(2)
    object.__setattr__(drawn, "factors", None)
    with pytest.raises(ValueError, match="no known factors"):
        factor_regressor.named_factors(drawn)


# ---- scores ----------------------------------------------------------------------------------------------------------


def test_a_perfect_reading_scores_one_and_a_constant_nothing(generator):
    truth, category = torch.randn(40, 2, generator=generator), torch.arange(40) % 3
    assert invariances.factor_score(truth, truth).value == pytest.approx(1)
    assert invariances.factor_score(truth.mean(0).expand(40, 2), truth).value == pytest.approx(0, abs=1e-6)
    assert invariances.factor_score(F.one_hot(category).float(), category).value == 1
    assert invariances.factor_score(torch.tensor([[1.0, 0, 0]]).expand(40, 3), category).value == 0


def test_the_score_is_r2_and_scaled_accuracy(generator):
    truth = torch.randn(60, 2, generator=generator)
    reading = truth + 0.7 * torch.randn(60, 2, generator=generator)
    r2 = 1 - (reading - truth).square().sum() / (truth - truth.mean(0)).square().sum()
    assert invariances.factor_score(reading, truth).value == pytest.approx(r2.item(), abs=1e-5)
    category = torch.tensor([0] * 6 + [1] * 4)
    reading = F.one_hot(torch.tensor([0] * 6 + [1] * 2 + [0] * 2)).float()
    assert invariances.factor_score(reading, category).value == pytest.approx(1 - 0.2 / 0.4)


def test_within_a_class_what_the_class_tells_counts_for_nothing(generator):
    labels = torch.arange(200) % 10
    middle = torch.randn(10, 1, generator=generator)[labels]
    truth = middle + torch.randn(200, 1, generator=generator)
    assert invariances.factor_score(middle, truth).value > 0.3
    assert invariances.factor_score(middle, truth, labels).value == pytest.approx(0, abs=1e-5)
    assert invariances.factor_score(truth + 5 * middle, truth, labels).value == pytest.approx(1)
    category = labels % 3  # wholly told by the class
    told = F.one_hot(category).float()
    assert invariances.factor_score(told, category).value == 1
    assert not invariances.factor_score(told, category, labels).value > 0  # nothing is left to be read


def test_within_a_class_a_free_category_keeps_its_score(generator):
    labels, category = torch.arange(600) % 20, torch.randint(0, 3, (600,), generator=generator)
    reading = F.one_hot(category).float() + 2 * torch.randn(20, 3, generator=generator)[labels]
    assert (
        invariances.factor_score(reading, category, labels).value
        > invariances.factor_score(reading, category).value + 0.2
    )


def test_intervals_hold_the_truth_and_differences_are_paired(generator):
    truth = torch.randn(500, 1, generator=generator)
    noise = torch.randn(500, 1, generator=generator)
    good, bad = (
        invariances.factor_score(truth + 0.5 * noise, truth),
        invariances.factor_score(truth + 0.6 * noise, truth),
    )
    interval = good.interval()
    assert interval.low < 0.75 < interval.high and interval.high - interval.low < 0.15
    difference = good.minus(bad)
    assert difference.low > 0 and difference.value == pytest.approx(good.value - bad.value)
    assert difference.high - difference.low < interval.high - interval.low
    both = invariances.mean_score([good, bad])
    assert both.value == pytest.approx((good.value + bad.value) / 2, abs=1e-6)


# ---- readers ---------------------------------------------------------------------------------------------------------


def test_the_linear_reader_reads_what_is_linear_and_nothing_else(generator):
    x = torch.randn(400, 5, generator=generator)
    known = {"linear": x[:, :2] * 3 + 1, "free": torch.randn(400, 1, generator=generator), "sign": (x[:, 2] > 0).long()}
    read = invariances.fit_linear(x[:300], {name: values[:300] for name, values in known.items()})
    scores = {name: invariances.factor_score(values, known[name][300:]).value for name, values in read(x[300:]).items()}
    assert scores["linear"] > 0.999 and scores["sign"] > 0.8 and abs(scores["free"]) < 0.1


def test_the_penalty_has_the_least_leave_one_out_error(generator):
    x = torch.randn(30, 8, generator=generator).double()
    y = x[:, :1] + 2 * torch.randn(30, 1, generator=generator).double()
    read = invariances.fit_linear(x, {"y": y})
    z, best = (x - x.mean(0)) / x.std(0), None
    for penalty in invariances.PENALTIES:  # by hand: one ridge per left-out row, with the scaling of all rows
        error, ridge = 0.0, 30 * penalty * torch.eye(8).double()
        for i in range(30):
            rest = torch.arange(30) != i
            a, b = z[rest], y[rest]
            centred = a - a.mean(0)
            w = torch.linalg.solve(centred.T @ centred + ridge, centred.T @ (b - b.mean(0)))
            error += (y[i] - b.mean(0) - (z[i] - a.mean(0)) @ w).square().item()
        w = torch.linalg.solve(z.T @ z + ridge, z.T @ (y - y.mean(0)))
        if best is None or error < best[0]:
            best = error, z @ w + y.mean(0)
    assert read(x)["y"].allclose(best[1].float(), atol=1e-4)


def test_cross_fitting_never_sees_what_it_scores(generator):
    x, free = torch.randn(60, 50, generator=generator), {"free": torch.randn(60, 1, generator=generator)}
    seen = invariances.factor_score(invariances.fit_linear(x, free)(x)["free"], free["free"])
    unseen = invariances.factor_score(invariances.cross_fit(x, free)["free"], free["free"])
    assert unseen.value < 0.1 and unseen.value <= seen.value
    linear = {"linear": x[:, :1]}
    assert invariances.factor_score(invariances.cross_fit(x, linear)["linear"], linear["linear"]).value > 0.8
    with pytest.raises(ValueError, match="folds"):
        invariances.cross_fit(x, free, folds=61)


def test_cross_fitting_undoes_what_blur_does_to_a_reader(generator):
    truth = {"x": torch.randn(300, 1, generator=generator), "large": torch.randint(0, 2, (300,), generator=generator)}
    misled = {"x": 0.2 * truth["x"] + 4, "large": F.one_hot(truth["large"]).float() + torch.tensor([0.0, 9.0])}
    before, after = invariances.score_all(misled, truth), invariances.cross_fit(invariances.stack(misled), truth)
    assert before["x"].value < 0 and before["large"].value <= 0
    assert min(s.value for s in invariances.score_all(after, truth).values()) > 0.99


def test_the_class_alone(generator):
    labels = torch.arange(40) % 4
    known = {"measured": labels[:, None].float(), "category": labels % 2}
    told = invariances.class_estimates(labels, known, labels.flip(0), {name: v.flip(0) for name, v in known.items()})
    assert invariances.factor_score(told["measured"], known["measured"]).value == pytest.approx(1)
    assert invariances.factor_score(told["category"], known["category"]).value == 1


def test_a_small_network_learns_to_read_and_comes_back_from_disk(tmp_path):
    images, known = squares(1500)
    trained = factor_regressor.train_factor_regressor(images, known, steps=150, batch=64)
    unseen, truth = squares(200, seed=1)
    scores = {name: s.value for name, s in invariances.score_all(trained.predict(unseen), truth).items()}
    assert min(scores.values()) > 0.8, scores
    assert invariances.stack(trained.predict(unseen)).shape == (200, 3 + 1 + 2)
    trained.card["data"] = "squares"
    trained.save(tmp_path)
    again = factor_regressor.load_factor_regressor(tmp_path)
    assert again.predict(unseen)["x"].allclose(trained.predict(unseen)["x"], atol=0.1)
    with pytest.raises(ValueError, match="takes"):
        again.predict(torch.rand(2, 3, 32, 32))


def test_factors_that_do_not_fit_are_refused():
    images, known = squares(10)
    with pytest.raises(ValueError, match="'x' must be float"):
        factor_regressor.train_factor_regressor(images, known | {"x": torch.zeros(10)}, steps=1)
    with pytest.raises(ValueError, match="'large' must be"):
        invariances.fit_linear(torch.rand(10, 2), {"large": known["large"][:9]})


def test_the_penultimate_layer_is_what_the_last_linear_layer_sees():
    torch.manual_seed(0)
    body, head = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.Flatten()), nn.Linear(4 * 4, 5)
    classifier = Classifier(nn.Sequential(body, head), "tiny", size=16)
    images = torch.rand(7, 3, 16, 16)
    logits, features = invariances.penultimate(classifier, images, batch=3)
    assert features.shape == (7, 16) and head(features).allclose(logits, atol=1e-6)
    without = Classifier(nn.Sequential(nn.Conv2d(3, 5, 16), nn.Flatten()), "none", size=16)
    with pytest.raises(ValueError, match="no linear layer"):
        invariances.penultimate(without, images)


# ---- noise -----------------------------------------------------------------------------------------------------------


def test_the_noise_moves_its_share_of_the_variance(generator):
    said, noise = torch.randn(2000, 1, generator=generator), torch.randn(8, 2000, 1, generator=generator)
    truth = said + 0.5 * torch.randn(2000, 1, generator=generator)
    moved = invariances.moved_by_noise(said + 0.5 * noise, truth)
    assert moved.value == pytest.approx(0.2, abs=0.02) and moved.low < moved.value < moved.high
    assert moved.value == pytest.approx(
        1 - invariances.factor_score(said, truth).value, abs=0.02
    )  # the law of total variance
    assert invariances.moved_by_noise(said.expand(4, 2000, 1), truth).value == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="two or more"):
        invariances.moved_by_noise(noise[:1], truth)


def test_the_mean_colour_misses_what_varies_inside_an_image(generator):
    inside, between = torch.randn(400, 3, 4, 4, generator=generator), torch.randn(400, 3, 1, 1, generator=generator)
    missed = invariances.colour_row(between + inside - inside.mean((2, 3), keepdim=True))["pixels_missed"]
    assert missed.value == pytest.approx(15 / 31, abs=0.03)  # 15 of 16 degrees of freedom, beside a variance of 1
    assert invariances.colour_row(between.expand(-1, -1, 4, 4))["pixels_missed"].value == pytest.approx(0, abs=1e-6)


def test_of_a_category_the_noise_moves_what_is_read():
    truth = {"a": torch.tensor([0, 1, 0, 1])}
    steady = F.one_hot(truth["a"]).float().repeat(3, 1) * torch.arange(1, 13)[:, None]  # 3 samples; the scores differ
    assert invariances.factors_moved({"a": steady}, truth, samples=3)["a"].value == 0
    free = F.one_hot(torch.arange(2000 * 3) // 2000 % 2).float()
    truth = {"a": torch.arange(2000) % 2}
    assert invariances.factors_moved({"a": free}, truth, samples=3)["a"].value > 0.5


# ---- words -----------------------------------------------------------------------------------------------------------


def test_a_factor_differs_only_if_every_pair_of_seeds_agrees(generator):
    guess, noise = torch.ones(200), 0.1 * torch.rand(200, generator=generator)

    def one(error):
        found = {"x": invariances.Score(error + noise, guess)}
        return invariances.Profile(found, found)

    bad, good = one(0.6), one(0.2)
    profiles = {("world", "standard", "logits"): bad, ("world", "robust", "logits"): good}
    several = {("world", "standard", "logits"): [bad, bad], ("world", "robust", "logits"): [good, one(0.7)]}
    pair = ("standard", "robust")
    assert invariances.differing(profiles, {}, "world", "logits", pair)["more"] == ["x"]
    assert invariances.differing(profiles, several, "world", "logits", pair)["same"] == ["x"]
    assert invariances.mean_profile([bad, good]).within["x"].value == pytest.approx(
        (bad.within["x"].value + good.within["x"].value) / 2
    )
    said = invariances_page.difference_sentence({"more": ["x"], "less": [], "same": ["y", "z"]}, "they")
    assert said == "they tell more of x; for the other 2 factors no difference is seen"


def test_inverters_are_called_by_the_classifiers_that_they_invert(monkeypatch):
    cards = {"ffi-glyphs-robust": "glyphs-robust-0", "runs/one": "glyphs-mine-3", "runs/two": "mine:factory"}
    monkeypatch.setattr(invariances.store, "read_card", lambda name: {"network": cards[name]})
    assert invariances.inverters_by_kind(list(cards)) == dict(
        zip(("robust", "mine", "mine:factory"), cards, strict=True)
    )
    with pytest.raises(ValueError, match="at least two inverters"):
        invariances.inverters_by_kind(["runs/one"])
    with pytest.raises(ValueError, match="different last words"):
        invariances.inverters_by_kind(["runs/one", "runs/one"])


def test_the_classifiers_that_are_inverted_are_probed_too(monkeypatch):
    monkeypatch.setattr(invariances, "load_classifier", lambda name: name)
    tools = {"standard": SimpleNamespace(classifier="of the inverter"), "mine": SimpleNamespace(classifier="own")}
    names = ["glyphs-standard-0", "glyphs-standard-1"]
    assert invariances.probed_classifiers(names, tools) == [*names, "own"]
    assert invariances.probed_classifiers([], tools) == ["of the inverter", "own"]


def test_spreads_are_compared_image_by_image_and_with_themselves():
    base, generator = torch.zeros(5, 40, 3, 4, 4), torch.Generator().manual_seed(0)
    near, far = (base + scale * torch.randn(base.shape, generator=generator) for scale in (0.1, 0.3))
    found = invariances.spread_differences({"standard": far, "robust": near})
    assert found["robust minus standard"]["spread"].high < -0.2
    for label in ("standard", "robust"):
        again = found[f"{label} again"]["spread"]
        assert again.low < 0.01 and again.high > -0.01
