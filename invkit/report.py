"""A report of what one's own classifier gives away about its images: inverters trained, measured, on one page.

    invkit.report.write_report("torchvision:resnet18", "report", minutes=10)  # report/report.html, report/report.json

`invkit.leakage` measures and `invkit.report_page` makes the page.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from invkit import leakage, report_page, store
from invkit.arguments import check_report
from invkit.dci.inverter import ClassifierInverter
from invkit.fit import TooFewMinutes, images_to_train_on, train_inverter, try_on_logits
from invkit.leakage import AtDepth
from invkit.network.classifiers import Classifier, load_classifier


def write_report(
    classifier: Classifier | str,
    out: str | Path,
    *,
    weights: str | Path | None = None,
    output: str | int | None = None,
    images: str | None = None,
    minutes: float = 10,
    depths: int | Sequence[int] | None = None,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Train inverters of a classifier, measure what they recover, and write a page and the numbers.

    Nothing is written before all is measured. In `out` there are then report.html, with its pictures inside,
    report.json, and the folders zero-shot and, with images, logits, from which `load_inverter` has the inverters back.

    Args:
        classifier: a `Classifier`, or a name as for `load_classifier`.
        out: the folder, made if missing; a report that it holds is replaced.
        weights: a file of weights for the network of that name.
        output: which of its outputs are the logits, as for `load_classifier`.
        images: "folder:PATH" or a data set's name: these images are reconstructed in place of bundled photos, and an
            inverter of the logits is trained on others of them.
        minutes: of training; with images, each of the two inverters has half of them. Measuring takes one more or so.
        depths: as for `train_inverter`.
        seed: of everything random.
        progress: show how much time is left.

    Returns:
        What report.json holds.

    Raises:
        ValueError, TypeError, FileNotFoundError: arguments that cannot work (`check_report`), or a classifier or images
            that cannot be had.
        TooFewMinutes: fewer minutes than the inverters take on this machine.
    """
    began, out = time.monotonic(), store.as_path(out)
    check_report(classifier, weights, images, minutes, depths, out)
    if not isinstance(classifier, Classifier):
        classifier = load_classifier(classifier, weights=weights, output=output)
    parts = 2 if images else 1
    settings: dict[str, Any] = {"minutes": minutes / parts, "seed": seed, "progress": progress}
    photos, which = leakage.photos_of(images, classifier, seed=seed)
    others = images_to_train_on(images, classifier) if images else None  # what is wrong with them is told of now
    try:
        if others is not None:
            try_on_logits(classifier, others, minutes / parts)  # before the blocks' inverter is trained
        inverter = train_inverter(classifier, depths=depths, **settings)
        logit_inverter = train_inverter(classifier, others, **settings) if images else None
    except TooFewMinutes as error:
        raise TooFewMinutes(minutes, parts * error.least) from None
    assert isinstance(inverter, ClassifierInverter) and not isinstance(logit_inverter, ClassifierInverter)

    bar = tqdm([0, *leakage.some_depths(inverter, depths)], "measuring", leave=False, disable=not progress)
    reference, *of_depths = [
        leakage.measure_depths(inverter, photos.images, [depth]) if depth else leakage.measure_reference(photos.images)
        for depth in bar
    ]
    results = [one for (one,) in of_depths]
    numbers = summary(classifier, results, reference, leakage.mean_colour_psnr(photos.images), which)
    logits = None
    if logit_inverter:
        logits = leakage.measure_logits(logit_inverter, photos.images, seed=seed)
        numbers["logits"] = {"psnr": logits.psnr.mean().item(), "gain": asdict(logits.gain),
                             "found": asdict(logits.found), "spread": logits.spread}  # fmt: skip
    numbers["minutes"] = {"of training": minutes, "in all": round((time.monotonic() - began) / 60, 2)}
    page = report_page.page_of(numbers, photos, results, reference, logit_inverter, logits)

    inverter.save(out / "zero-shot")
    if logit_inverter:
        logit_inverter.save(out / "logits")
    with ExitStack() as files:
        texts = {"report.html": page, "report.json": json.dumps(numbers, indent=1) + "\n"}
        for name, text in texts.items():
            files.enter_context(store.whole(out / name)).write_text(text, encoding="utf-8")
    return numbers


def summary(
    classifier: Classifier, results: Sequence[AtDepth], reference: Sequence[AtDepth], flat: Tensor, which: str
) -> dict[str, Any]:
    """The numbers of a report, as JSON."""
    cut, card = leakage.where_to_cut(results), store.read_card(leakage.REFERENCE)
    return {
        "network": classifier.name, "size": classifier.size, "classes": classifier.classes,
        "photos": which, "mean_colour_psnr": flat.mean().item(), "cuts": leakage.cuts(classifier),
        "depths": [_row(result) for result in results],
        # blocks: the shapes are the input's and every inverted block's; then come the logits
        "reference": {"inverter": leakage.REFERENCE, "blocks": len(card["shapes"]), "hours": card["hours"],
                      "depths": [_row(result) for result in reference]},
        "cut": {"depth": cut and cut.depth, "block": cut and cut.block, "found": leakage.FOUND, "gain": leakage.GAIN},
        "made": {"date": f"{datetime.date.today()}", "machine": store.machine_class(), "code": store.code_version()},
    }  # fmt: skip


def _row(result: AtDepth) -> dict[str, Any]:
    facts = {key: getattr(result, key) for key in ("depth", "block", "numbers", "trained", "quiet")}
    return facts | {"psnr": result.psnr.mean().item(), "gain": asdict(result.gain), "found": asdict(result.found)}
