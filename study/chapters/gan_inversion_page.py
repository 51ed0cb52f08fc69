"""Chapter 9: what it records, and its tables, figures and words; `study.chapters.gan_inversion` measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr
from torch import Tensor

from invkit import metrics, statistics
from invkit.network.generators import Generator
from invkit.optimize import Inversion
from invkit.statistics import Interval
from study import plots, scores
from study.chapters.gan_inversion import (
    CONTROLS,
    GOAL,
    GOAL_REFINED,
    Mending,
    TrainingPlan,
    median,
    mending_verdict,
    psnr_path,
    psnr_within,
)
from study.notebook import listed, slug
from study.scores import Scores, tolerance

TITLES = {"adam": "Adam", "lbfgs": "L-BFGS", "gauss-newton": "Gauss–Newton"}  # of the optimisers
BUDGETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)  # seconds a face
WORDS = {"helps": "dividing is better", "hurts": "dividing is worse", "no difference seen": "not told apart"}


def record_recovery(study, feedforward: Scores, one_pass: Scores, rounds: int, faces: Tensor, latents: Tensor) -> None:
    """Record how well latents are recovered, what error feedback adds, and how far random pairs of faces lie apart.

    rounds: of error feedback, with which `feedforward` was inverted; 0 for none.
    faces, latents: the true ones.
    """
    means = feedforward.intervals()
    study.record("psnr", median(feedforward.psnr), unit="dB", tolerance=0.5)
    study.record_interval("psnr", "mean", means["psnr"])
    for measure in ("cosine", "r2", "perceptual"):
        study.record(measure, means[measure], tolerance=tolerance(measure, study.chapter))
    if rounds:
        gain = statistics.paired_bootstrap(feedforward.psnr, one_pass.psnr)
        study.record("gain_feedback", gain, unit="dB", digits=2, tolerance=0.3)
    others = faces.roll(1, 0)
    chance = torch.cosine_similarity(latents, latents.roll(1, 0))
    study.record_interval("cosine", "chance", statistics.bootstrap(chance))
    study.record("psnr_chance", metrics.psnr(faces, others).median(), unit="dB", tolerance=0.5)
    study.record("perceptual_chance", metrics.perceptual(faces, others).mean(), digits=2, tolerance=0.05)
    study.record("goal", GOAL, unit="dB", digits=2, tolerance=0)
    again = f" and {rounds} × error feedback" if rounds else ""
    steps = f", then {rounds} × error feedback: generate the face again, invert that, and give back what it lost"
    for id, text in {
        "passes_words": f"one pass through the inverses{again},",
        "feedback_words": f"one pass{steps if rounds else ' through the chain'}.",
        "goal_words": "reached" if median(feedforward.psnr).value >= GOAL else "missed",
        "perceptual_name": metrics.perceptual_name(),
    }.items():
        study.record_text(id, text)


def recovery_rows(columns: Mapping[str, Scores]) -> dict:
    """Rows of a table, {how it was inverted: {measure: value}}."""
    return {
        title: {"PSNR, dB, median": f"{median(some.psnr):.1f}", **some.intervals()} for title, some in columns.items()
    }


def id_of(method: str, start: str) -> str:
    """Of an optimisation, as part of an id: "gauss_newton_alone" or "gauss_newton_started"."""
    return f"{method.replace('-', '_')}_{'alone' if start == 'random' else 'started'}"


def record_optimised(study, runs: Mapping[tuple[str, str], Inversion], scored: Mapping, refine: str) -> None:
    """Record what optimisers reach and in how many seconds a face, {(method, start): …}; `refine` is the one shown."""
    for (method, start), some in scored.items():
        id, seconds = id_of(method, start), runs[method, start].seconds / len(some.psnr)
        study.record(f"psnr_{id}", median(some.psnr), unit="dB", tolerance=5.0)
        study.record(f"seconds_{id}", seconds, unit="s", digits=2, tolerance=None)
    study.record("psnr_refined", median(scored[refine, "ẑ"].psnr), unit="dB", tolerance=5.0)
    steps = len(runs[refine, "ẑ"].losses) - 1
    study.record_text("few_steps_words", f"{steps} steps of {TITLES[refine]}")
    study.record("goal_refined", GOAL_REFINED, unit="dB", digits=2, tolerance=0)
    reached = [TITLES[m] for m, start in scored if start == "ẑ" and scored[m, start].psnr.median() >= GOAL_REFINED]
    words = f"is reached from ẑ by {listed(reached)}" if reached else "is missed"
    study.record_text("goal_refined_words", words, compared=False)
    study.record_text("refine_name", TITLES[refine])


def record_start_controls(study, starts: tuple[Scores, Scores], near: Scores) -> None:
    """Record what a second random start gains over the first, on average nothing, and what one near the truth gives.

    starts: as from `gan_inversion.from_two_random_starts`.
    near: as from `gan_inversion.from_near_the_truth`.
    """
    first, second = starts
    gain = statistics.paired_bootstrap(second.psnr, first.psnr)
    study.record("gain_second_start", gain, unit="dB", digits=2, tolerance=5.0)
    study.record("psnr_near_truth", median(near.psnr), unit="dB", tolerance=None)


def optimised_rows(
    runs: Mapping[tuple[str, str], Inversion], scored: Mapping, at_start: Scores, seconds: float
) -> dict:
    """Rows of a table, {(method, start): {column: value}}; first the feedforward one, of so many seconds a face."""
    rows = {}
    for run, some in {("feedforward", ""): at_start, **scored}.items():
        took = runs[run].seconds / len(some.psnr) if run in runs else seconds
        rows[TITLES.get(run[0], run[0]), run[1]] = {
            "steps": str(len(runs[run].losses) - 1) if run in runs else "",
            "s a face": f"{took:.2g}",
            "PSNR, dB, median": f"{median(some.psnr):.1f}",
            f"≥ {GOAL_REFINED} dB": f"{(some.psnr >= GOAL_REFINED).float().mean():.0%}",
            "perceptual": f"{some.perceptual.mean():.3f}",
            "cosine": f"{some.cosine.mean():.3f}",
        }
    return rows


def record_gains(study, runs: Mapping[tuple[str, str], Inversion], scored: Mapping, at_start: Scores) -> dict:
    """Record what each optimiser gains by starting from the inverse's latent; returns rows of a table."""
    rows = {}
    for method in dict.fromkeys(method for method, _ in scored):
        alone, started = (scored[method, start].psnr for start in ("random", "ẑ"))
        gain, over = (statistics.paired_bootstrap(started, other) for other in (alone, at_start.psnr))
        said, id = scores.verdict(gain), method.replace("-", "_")
        study.record(f"gain_{id}", gain, unit="dB", digits=2, tolerance=5.0, verdict=said)
        long, short = runs[method, "random"], runs[method, "ẑ"]
        rows[TITLES[method]] = {
            "steps": f"{len(short.losses) - 1} against {len(long.losses) - 1}",
            "from ẑ − alone, dB": f"{gain:+.1f}: {said}",
            "time saved": f"{long.seconds / short.seconds:.0f} ×",
            "from ẑ − feedforward, dB": f"{over:+.1f}",
        }
    return rows


def budget_chart(runs: Mapping[tuple[str, str], Inversion], at_start: Scores, before: float) -> Figure:
    """Median PSNR over the seconds spent on a face; before: seconds that the inverse's latent takes."""
    lines, paths = {}, {run: psnr_path(inversion) for run, inversion in runs.items()}
    seconds = {run: inversion.seconds / paths[run].shape[1] for run, inversion in runs.items()}
    quickest = min(seconds[run] / (len(path) - 1) for run, path in paths.items())
    budgets = [budget for budget in BUDGETS if quickest <= budget <= 2 * max(seconds.values())]
    for (method, start), path in paths.items():
        label = f"{TITLES[method]}, {'alone' if start == 'random' else 'from ẑ'}"
        spent = 0.0 if start == "random" else before
        lines[label] = psnr_within(path, seconds[method, start], budgets, spent)
    reference = {f"feedforward, {before:.1g} s": at_start.psnr.median().item()}
    return plots.curve(budgets, lines, "seconds a face", "PSNR, dB, median", logx=True, reference=reference)


def record_live(
    study, plans: Mapping[str, TrainingPlan], results: Mapping[str, Sequence[Scores]], seconds: Mapping
) -> dict:
    """Record the chains trained in the chapter, {name: scores of each seed}; returns rows of a table.

    The first is trained by divide and conquer, the others as a whole.
    seconds: of one training.
    """
    psnr = {name: torch.stack([some.psnr for some in copies]) for name, copies in results.items()}
    (dividing, ours), words, rows = next(iter(psnr.items())), [], {}
    for name, copies in results.items():
        id, plan = "divide" if name == dividing else slug(name), plans[name]
        middle = median(psnr[name].mean(0))
        study.record(f"live_{id}", middle, unit="dB", tolerance=1.5, seconds=seconds[name])
        steps = plan.divide * len(plan.often) + plan.synchronise
        row = {"steps": f"{steps:,}", "s": f"{seconds[name]:.0f}", "PSNR, dB, median": f"{middle:.1f}"}
        for measure in ("perceptual", "cosine", "r2"):
            row[measure] = torch.stack([some[measure] for some in copies]).mean().item()
        if name != dividing:
            gain = scores.difference_over_seeds(ours, psnr[name])
            verdict = scores.verdict_over_seeds(ours, psnr[name])
            study.record(f"live_gain_{id}", gain, unit="dB", digits=2, tolerance=1.5, verdict=verdict)
            words.append(f"against “{name}”, {WORDS[verdict]}")
            row["dividing − this, dB"] = f"{gain:+.2f}: {WORDS[verdict]}"
        rows[name] = row
    study.record_text("live_seeds", len(next(iter(results.values()))))
    study.record_text("live_words", "; ".join(words), compared=False)
    return rows


def record_mending(study, mended: Mending) -> dict:
    """Record whether regenerated faces are better than the worst ones and the controls; returns rows of a table."""
    rows, controls = {}, {name: mended.changes("regenerated", name) for name in CONTROLS}
    own = mended.changes("regenerated")
    for name in ("regenerated", *CONTROLS):
        changes, far = mended.changes(name), statistics.bootstrap(mended.identity[name])
        row = {measure: f"{change:+.2f}" for measure, change in changes.items()}
        for measure, change in changes.items():
            study.record(f"{name}_{measure}", change, digits=2, tolerance=0.4)
            if name in controls:
                study.record(f"against_{name}_{measure}", controls[name][measure], digits=2, tolerance=0.4)
                row[f"{measure}: regenerated − this"] = f"{controls[name][measure]:+.2f}"
        study.record(f"{name}_identity", far, digits=2, tolerance=0.05)
        rows[name] = row | {"perceptual": far}
    said = mending_verdict(own, controls)
    unclear = [f"by {s} the regenerated faces do not clearly improve" for s in own if own[s].high >= 0]
    for name, gains in controls.items():
        unclear += [f"by {s} they are not clearly better than the {name} ones" for s, g in gains.items() if g.high >= 0]
    clear = "by both scores the regenerated faces improve, and are better than the shrunk and the moved ones"
    study.record("mends", said == "mends", tolerance=None, verdict=said)
    study.record_text("verdict", said)
    study.record_text("reasons", "; ".join(unclear) or clear, compared=False)
    return rows


def record_mending_controls(study, certain: Mapping[str, Interval]) -> None:
    """Record what the judge says where the answer is known; see `gan_inversion.mending_controls`."""
    for name, change in certain.items():
        study.record(f"{name}_features", change, digits=2, tolerance=0.4)


def record_agreement(study, mended: Mending, chosen: Tensor) -> None:
    """Record how far the two defect scores agree, over all faces and on the chosen ones."""
    features, thumbnail = mended.everyone["features"].cpu(), mended.everyone["thumbnail"].cpu()
    agreement = spearmanr(features, thumbnail).statistic
    study.record("agreement", agreement, digits=2, n=len(features), tolerance=0.1)
    higher = (thumbnail[chosen.cpu()] > thumbnail.median()).float().mean().item()
    study.record("worst_in_both", 100 * higher, unit="%", n=len(chosen), tolerance=15)
    degree = (
        "strongly" if agreement > 0.6 else "moderately" if agreement > 0.3 else "weakly" if agreement > 0 else "not"
    )
    study.record_text("degree", degree, compared=False)


def defect_captions(mended: Mending, first: int) -> dict[str, list[str]]:
    """{version: "features, thumbnail" of the first faces}, in standard deviations above the mean of all faces."""
    mean = {name: values.mean() for name, values in mended.everyone.items()}
    captions = {}
    for name, some in {"original": mended.before, **mended.after}.items():
        columns = zip(*((some[s][:first] - mean[s]).tolist() for s in mean), strict=True)
        captions[name] = [f"{a:+.1f}, {b:+.1f}" for a, b in columns]
    return captions


def identity_chart(mended: Mending) -> Figure:
    """What an improvement costs: change of the defect scores against the distance to the original face."""
    points = {}
    for name, after in mended.after.items():
        both = torch.stack([after[s] - mended.before[s] for s in mended.before]).mean(0)
        points[name] = statistics.bootstrap(mended.identity[name]), statistics.bootstrap(both)
    return plots.scatter(points, "perceptual distance to the original", "change of the defect scores, s.d.")


def weights_facts(card: Mapping, generator: Generator) -> str:
    """A Markdown list: what the card says of the weights."""
    facts = {
        "inverts": f"{card['network']}, from {card['size']} pixels to {generator.latent_dim} numbers",
        "trained": f"{card['steps']:,} steps in {card['hours']} hours, seed {card['seed']}",
        "on": card["machine"],
        "by": f"invkit {card['code']}",
        "size": f"{card['numbers'] / 1e6:.1f} million numbers, {card['bytes'] / 1e6:.1f} MB",
        "SHA-256": f"`{card['sha256'][:16]}…`",
        "again": f"`python -m recipes train {card['name']} --folder FOLDER --seed {card['seed']}`",
    }
    return "\n".join(f"- **{key}**: {value}" for key, value in facts.items())
