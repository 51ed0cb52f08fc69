"""Chapter 3: its tables, figures and words; `study.chapters.invariances` measures."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from matplotlib.figure import Figure
from torch import Tensor

from invkit.statistics import Interval
from study import plots
from study.chapters.invariances import Profile, Profiles, Score, differing
from study.notebook import listed


def noise_words(rows: Mapping[Hashable, Mapping[str, Interval]]) -> str:
    """Whether the noise moves as much as the mean over noise vectors misses, over all rows of `noise_row`."""
    found = []
    for row in rows.values():
        moved, lost = row["pixels_moved"], row["pixels_missed"]
        found.append("less" if moved.high < lost.low else "more" if moved.low > lost.high else "alike")
    if set(found) == {"less"}:
        return "less in every row (no two intervals overlap): the noise says too little of what is lost"
    if set(found) == {"alike"}:
        return "not told apart from it in any row (the intervals overlap)"
    return f"less in {found.count('less')}, more in {found.count('more')} of {len(found)} rows (intervals apart)"


def noise_images(images: Tensor, drawn: Mapping[str, Tensor], k: int = 7) -> dict[str, Tensor]:
    """Rows of a figure: the first k images, two samples of each classifier, and four times the spread over noise.

    drawn: {classifier: (samples, N, 3, S, S)}.
    """
    rows = {"original": images[:k]}
    for label, samples in drawn.items():
        rows |= {f"{label}, noise {i + 1}": samples[i, :k] for i in range(min(2, len(samples)))}
        spread = samples[:, :k].std(0).mean(1, keepdim=True)
        rows[f"{label}, spread"] = (4 * spread).clamp(0, 1).expand(-1, 3, -1, -1)
    return rows


def rank_chart(ranks: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """The share of all pixels at each rank of the original among the samples: {panel: {label: S + 1 shares}}."""
    lines = {
        f"{panel}: pixels, %": {label: [100 * share for share in shares] for label, shares in some.items()}
        for panel, some in ranks.items()
    }
    places = range(len(next(iter(next(iter(ranks.values())).values()))))
    level = {title: {"calibrated": 100 / len(places)} for title in lines}
    return plots.panels(places, lines, "rank of the original among the samples", logy=True, reference=level)


def reconstruction_rows(profiles: Profiles, world: str, pair: Sequence[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Scores from reconstructions of one world as rows of a table: (world, factor)."""
    first, second = (profiles[world, label, "cross-fitted"].overall for label in pair)
    rows = {}
    for factor, ceiling in profiles[world, "originals", "cross-fitted"].overall.items():
        row = rows[world, factor] = {"originals": f"{ceiling.value:z.2f}"}
        row |= {label: _written(one[factor]) for label, one in zip(pair, (first, second), strict=True)}
        row[f"{pair[1]} − {pair[0]}"] = format(second[factor].minus(first[factor]), "+z.2f")
        for label in pair:
            real = profiles[world, label, "real"].overall[factor]
            row[f"{label}, by the network trained on real glyphs"] = f"{real.value:z.2f}"
    return rows


def probe_rows(profiles: Profiles, world: str, pair: Sequence[str]) -> dict[tuple[str, str], dict[str, str]]:
    """Scores of linear probes in one world as rows of a table: (world, factor)."""
    rows = {}
    for factor, alone in profiles[world, "class", "alone"].overall.items():
        row = rows[world, factor] = {"class alone": f"{alone.value:z.2f}"}
        for layer in ("logits", "penultimate"):
            first, second = (profiles[world, label, layer].overall[factor] for label in pair)
            row |= {f"{pair[0]}, {layer}": f"{first.value:z.2f}", f"{pair[1]}, {layer}": f"{second.value:z.2f}"}
            row[f"{pair[1]} − {pair[0]}, {layer}"] = format(second.minus(first), "+z.2f")
    return rows


def _written(score: Score) -> str:
    return format(score.interval(), "z.2f")


LABEL = "score: 0 the best constant guess, 1 no error"


def profile_chart(profiles: Profiles, worlds: Sequence[str], pair: Sequence[str]) -> Figure:
    """The invariance profile: scores of two classifiers, by reconstructions and by probes, with ceiling and floor."""
    first = worlds[0]
    kinds = [(first, first, "overall"), ("… within a class", first, "within")]
    kinds += [(world, world, "overall") for world in worlds[1:]]
    panels, ticks = {}, {}
    for title, world, which in kinds:
        found = {where[1:]: getattr(one, which) for where, one in profiles.items() if where[0] == world}
        panels[title], ticks[title] = {}, {}
        for form, source in (("{}", "cross-fitted"), ("{}, probe", "logits")):
            for label in [label for label in pair if (label, source) in found]:
                panels[title][form.format(label)] = _intervals(found[label, source])
        ticks[title]["originals"] = {f: s.value for f, s in found["originals", "cross-fitted"].items()}
        floors = [found[label, "shuffled"] for label in pair if (label, "shuffled") in found]
        ticks[title]["shuffled"] = {f: max(floor[f].value for floor in floors) for f in floors[0]}
        if which == "overall":
            ticks[title]["class alone"] = {f: s.value for f, s in found["class", "alone"].items()}
    hollow = {f"{label}, probe": label for label in pair}
    return plots.dots(panels, LABEL, hollow, ticks, xlim=(-0.1, 1.03))


def controls_chart(profiles: Profiles, world: str, labels: Sequence[str]) -> Figure:
    """Scores within a class of all classifiers of one world: from reconstructions, and from two layers by probes."""
    sources = {"reconstruction": "cross-fitted", "probe, logits": "logits", "probe, penultimate layer": "penultimate"}
    panels = {
        title: {label: _intervals(profiles[world, label, source].within) for label in labels}
        for title, source in sources.items()
    }
    return plots.dots(panels, LABEL, xlim=(-0.1, 1.03))


def _intervals(scores: Mapping[str, Score]) -> dict[str, Interval]:
    return {factor: one.interval() for factor, one in scores.items()}


def difference_sentence(found: Mapping[str, Sequence[str]], subject: str) -> str:
    """What a comparison allows one to say of `subject`, in the plural: "... tell more of ink hue; for ..."."""
    parts = [f"{word} of {listed(found[word])}" for word in ("more", "less") if found[word]]
    if not parts:
        return f"{subject} tell neither more nor less of any factor"
    same = len(found["same"])
    rest = f"the other {same} factors" if same > 1 else "the other factor"
    return f"{subject} tell {', and '.join(parts)}" + (f"; for {rest} no difference is seen" if same else "")


def hue_sentences(profiles: Profiles, worlds: Sequence[str], pair: Sequence[str]) -> str:
    """How well the hue of the ink can be estimated from reconstructions in each world, beside what the class tells."""
    text = ""
    for world in worlds:
        scores = {label: profiles[world, label, "cross-fitted"].overall["ink hue"] for label in pair}
        alone = profiles[world, "class", "alone"].overall["ink hue"].value
        texts = [f"{_written(one)} ({label})" for label, one in scores.items()]
        text += f" In the {world} world the hue of the ink is estimated with a score of {listed(texts)};"
        text += f" the character alone would give {alone:z.2f}.".replace("-", "−")
    return text


def controls_words(profiles: Profiles, world: str, found: Mapping[str, Sequence[str]], labels: Sequence[str]) -> str:
    """Of which factors the second of some classifiers holds more than the first, and of which more than the others.

    found: `differing` of the first two; labels: of all.
    """
    first, second, *others = labels
    if not found["more"]:
        return f"there is no factor of which the {second} classifier's logits tell more than the {first} one's"
    over = []
    for other in others:
        ours, control = (profiles[world, label, "cross-fitted"].within for label in (second, other))
        more = [factor for factor in found["more"] if ours[factor].minus(control[factor]).low > 0]
        over.append(f"more than the {other} one's of {_these(more, found['more'])}")
    text = f"the {second} classifier's logits tell more than the {first} one's of {listed(found['more'])}"
    return "; ".join([text, *over])


def _these(some: Sequence[str], all_: Sequence[str]) -> str:
    return "all of these" if list(some) == list(all_) else listed(some) if some else "none"


def words(
    profiles: Profiles, by_seed: Mapping[tuple[str, str, str], Sequence[Profile]], worlds: Iterable[str],
    pair: Sequence[str], found: Mapping[str, Sequence[str]], labels: Sequence[str],
) -> dict[str, str]:  # fmt: skip
    """What the page says in words, by its ids.

    found: `differing` of the pair, from reconstructions of the first world; labels: of all its classifiers.
    """
    worlds = list(worlds)
    first, second = pair
    said = difference_sentence(found, f"the {second} classifier's logits")
    answer = f"Estimated from reconstructions, within a class and against the {first} classifier's, {said}."
    seeds = sorted({len(several) for several in by_seed.values()})
    means = f"means over {' or '.join(map(str, seeds))} training seeds"
    texts = {
        "answer": answer + hue_sentences(profiles, worlds, pair),
        "controls_words": controls_words(profiles, worlds[0], found, labels),
        "seeds_words": "of one training seed" if seeds == [1] else means,
    }
    for layer, what in (("logits", "logits"), ("penultimate", "penultimate features")):
        by_probe = differing(profiles, by_seed, worlds[0], layer, pair)
        texts[f"{layer}_words"] = difference_sentence(by_probe, f"the {second} classifier's {what}")
    return texts
