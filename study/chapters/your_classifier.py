"""Chapter 14: the tables, figures and words of a report on one's own classifier; `invkit.leakage` measures.

What was trained against the clock comes out differently on every machine, so its figures are recorded without a
tolerance. Those of the shipped inverter beside it are compared.

Run by hand, outside the book, the chapter shows its figures and its answer below the cells that make them; on the
book's page they stand in the prose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from IPython.display import Markdown, display
from matplotlib.figure import Figure
from torch import Tensor

from invkit import statistics
from invkit.data.images import Data, fit_square
from invkit.ffi.inverter import LogitInverter
from invkit.fit import TooFewMinutes, images_to_train_on, try_on_logits
from invkit.leakage import FACTORS, AtDepth, FromLogits, cuts, mean_colour_psnr
from invkit.network.classifiers import Classifier
from invkit.report_page import cut_sentence, leak_sentence, per_cent, rule_sentence
from study import plots
from study.notebook import Study

BY_HAND = "by hand"  # the profile of a run outside the book
SHOWN = 5  # photos a figure
REFERENCE = "EfficientNet-Lite0"


@contextmanager
def share_of(minutes: float, images: str | None) -> Iterator[float]:
    """The minutes of each inverter; within it, those that are too few for one are told of as those of all.

    Args:
        minutes: of all inverters: of one, and with images, of a second one.
        images: as the chapter's parameter.
    """
    parts = 2 if images else 1
    try:
        yield minutes / parts
    except TooFewMinutes as error:
        raise TooFewMinutes(minutes, parts * error.least) from None


def images_tried(classifier: Classifier, images: str | None, minutes: float) -> Tensor | None:
    """The images that an inverter of the logits is trained on, once these minutes are known to be enough for it.

    None without images. What is wrong with them is told of here, before the inverter of the blocks is trained.
    """
    if images is None:
        return None
    others = images_to_train_on(images, classifier)
    try_on_logits(classifier, others, minutes)
    return others


def keep_figure(study: Study, id: str, figure: Figure) -> None:
    """Keep a figure for the page; show it at once where the chapter is run by hand."""
    study.figure(id, figure)
    if study.profile == BY_HAND:
        display(figure)


def cut_rows(classifier: Classifier) -> dict[int, dict[str, object]]:
    """Rows of a table, one a block, by depth."""
    rows = {}
    for row in cuts(classifier):
        rows[row["depth"]] = {key: value for key, value in row.items() if key != "depth"}
        rows[row["depth"]]["numbers"] = f"{row['numbers']:.3g}"
    return rows


def depth_rows(results: Sequence[AtDepth]) -> dict[int, dict[str, object]]:
    """Rows of a table, one a depth that was measured."""
    return {
        one.depth: {
            "block": one.block,
            "numbers": f"{one.numbers:.3g}",
            "psnr": statistics.bootstrap(one.psnr),
            "over the mean colour, dB": f"{one.gain:+.1f}",
            "found": one.found,
            "little recovered": "yes" if one.quiet else "no" if one.trained else "trained too little",
        }
        for one in results
    }


def record_leakage(
    study: Study, classifier: Classifier, photos: Data, results: Sequence[AtDepth], reference: Sequence[AtDepth]
) -> None:
    """Record the answer in words and, of the first and the deepest depth, what was recovered."""
    study.record_texts(network=classifier.name, classes=classifier.classes, size=classifier.size)
    study.record("blocks", len(classifier.blocks), digits=1, tolerance=0)
    study.record("photos", len(photos), digits=1, tolerance=0)
    flat = statistics.bootstrap(mean_colour_psnr(photos.images))
    study.record("psnr_mean_colour", flat, unit="dB", tolerance=0.1)
    leaks, cut, rule = leak_sentence(results), cut_sentence(results), rule_sentence(len(photos))
    study.record_texts(compared=False, leaks=leaks, cut=cut, rule=rule)
    if study.profile == BY_HAND:
        display(Markdown(f"**{leaks} {cut}** {rule}"))
    for name, one in (("first", results[0]), ("deepest", results[-1])):
        _record(study, name, one.depth, one, None, None)
    for one in reference:
        _record(study, f"lite0_{one.depth}", one.depth, one, 0.5, 15)  # one of few photos may turn


def _record(
    study: Study, name: str, depth: int, one: AtDepth | FromLogits, of_gain: float | None, of_found: float | None
) -> None:
    study.record(f"depth_{name}", depth, digits=1, tolerance=0)
    study.record(f"gain_{name}", one.gain, unit="dB", digits=2, tolerance=of_gain)
    study.record(f"found_{name}", one.found.times(100), unit="%", digits=2, tolerance=of_found)


def picture_depths(study: Study, photos: Data, results: Sequence[AtDepth]) -> None:
    """Draw some photos, a row each, and their reconstructions from each depth, in columns."""
    images = [photos.images, *(one.images for one in results)]
    rows = {f"photo {i + 1}": torch.stack([column[i] for column in images]) for i in range(min(SHOWN, len(photos)))}
    captions = {row: ["", *(f"{one.psnr[i]:.1f}" for one in results)] for i, row in enumerate(rows)}
    columns = ["photo", *(f"block {one.depth}" for one in results)]
    keep_figure(study, "depths", plots.image_grid(rows, columns, captions))


def leakage_chart(classifier: Classifier, results: Sequence[AtDepth], reference: Sequence[AtDepth], of: int) -> Figure:
    """What is recovered over the share of a network's blocks, of one's own and of a reference of `of` blocks."""
    series = {classifier.name: (results, len(classifier.blocks)), REFERENCE: (reference, of)}
    with plots.canvas(plots.WIDTH, 3.6, ncols=2) as (figure, axes):
        for i, (name, (some, blocks)) in enumerate(series.items()):
            x = [one.depth / blocks for one in some]
            look = {"color": plots.COLOURS[i], "marker": plots.MARKERS[i], "capsize": 0, "elinewidth": 1.2}
            for axis, intervals in zip(
                axes, ([one.gain for one in some], [one.found.times(100) for one in some]), strict=True
            ):
                values = [one.value for one in intervals]
                reach = [[one.value - one.low for one in intervals], [one.high - one.value for one in intervals]]
                axis.errorbar(x, values, yerr=reach, label=name, **look)
        axes[0].axhline(0, color=plots.GREY, linestyle="--", linewidth=1.3)
        axes[0].set(ylabel="PSNR over the mean colour, dB")
        axes[1].set(ylabel="own photo found, %", ylim=(-3, 103))
        for axis in axes:
            axis.set(xlim=(0, 1.02), xlabel="share of the network's blocks")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def picture_logits(
    study: Study, photos: Data, logit_inverters: Mapping[str, LogitInverter], recovered: Mapping[str, FromLogits]
) -> None:
    """Draw some images, the best guesses of each inverter from their logits, and samples of the last one."""
    n, last = min(SHOWN + 3, len(photos)), list(logit_inverters)[-1]
    rows = {"image": fit_square(photos.images[:n], logit_inverters[last].size).clamp(0, 1)}
    captions = {}
    for name, logits in recovered.items():
        row = "best guess" if len(recovered) == 1 else f"best guess,\n{name}"
        rows[row] = fit_square(logits.guess[:n], logit_inverters[last].size).clamp(0, 1)
        captions[row] = [f"{value:.1f}" for value in logits.psnr[:n].tolist()]
    rows |= {f"sample {k + 1}": some[:n] for k, some in enumerate(recovered[last].samples)}
    keep_figure(study, "logits", plots.image_grid(rows, captions=captions))


def picture_surgery(study: Study, by_factor: Mapping[str, tuple[Tensor, Tensor]], way: Tensor) -> None:
    """Draw the last inverter's guesses from multiplied logits of some images, and those between two images' logits."""
    guesses = list(by_factor.values())[-1][0]
    rows = {f"image {i + 1}": guesses[:, i] for i in range(min(3, guesses.shape[1]))} | {"between two": way}
    keep_figure(study, "surgery", plots.image_grid(rows, [f"× {factor:g}" for factor in FACTORS], scale=1.2))


def record_logits(
    study: Study,
    logit_inverters: Mapping[str, LogitInverter],
    recovered: Mapping[str, FromLogits],
    by_factor: Mapping[str, tuple[Tensor, Tensor]],
) -> None:
    """Record what each inverter recovered from logits; what was trained by the clock has no tolerance."""
    beside, of_the_longer = "Without images, this part is left out." if not logit_inverters else "", ""
    for name, inverter in logit_inverters.items():
        id, of_gain, of_share = ("logits", None, None) if not beside else ("logits_longer", 0.5, 15)
        _record(study, id, len(inverter.classifier.blocks), recovered[name], of_gain, of_share)
        study.record(f"spread_{id}", 100 * recovered[name].spread, unit="%", digits=2, tolerance=of_share)
        seen = statistics.proportion(by_factor[name][1][FACTORS.index(1)]).times(100)
        study.record(f"seen_{id}", seen, unit="%", digits=2, tolerance=of_share)
        if beside:
            of_the_longer = ", of the inverter trained for longer"
            beside += f" The second one below was trained for {_length(inverter)}; samples and surgery are its."
        else:
            study.record("images", inverter.card["images"], tolerance=None)
            beside = f"It was trained for {_length(inverter)}."
    study.record_texts(compared=False, beside=beside, of_the_longer=of_the_longer)


def _length(inverter: LogitInverter) -> str:
    minutes = 60 * inverter.card["hours"]
    return f"{minutes:.0f} minutes" if minutes >= 2 else f"{60 * minutes:.0f} seconds"


def logit_rows(
    logit_inverters: Mapping[str, LogitInverter], recovered: Mapping[str, FromLogits]
) -> dict[str, dict[str, object]]:
    """Rows of a table, one an inverter of the logits."""
    return {
        name: {
            "trained for": _length(logit_inverters[name]),
            "images": f"{logit_inverters[name].card['images']:,}",
            "over the mean colour, dB": f"{one.gain:+.1f}",
            "found": one.found,
            "spread": per_cent(one.spread),
        }
        for name, one in recovered.items()
    }


def surgery_rows(by_factor: Mapping[str, tuple[Tensor, Tensor]]) -> dict[str, dict[str, str]]:
    """A row an inverter: by the factor of the logits, the share of guesses in which the class of the image is seen."""
    return {
        name: {f"× {factor:g}": per_cent(row.float().mean().item()) for factor, row in zip(FACTORS, same, strict=True)}
        for name, (_, same) in by_factor.items()
    }
