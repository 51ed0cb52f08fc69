"""Chapter 17, what its page records, tables and draws; `study.chapters.dose_of_robustness` trains and measures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from invkit.statistics import Interval, bootstrap, proportion
from study import plots
from study.baselines import mean_colours
from study.chapters.dose_of_robustness import COMPARED, Dose, DoseImages, DoseTraining, Inverted, Rung, values_of
from study.notebook import Study
from study.scores import MEASURES, mean_over_trainings, score, written
from study.trainings import difference_of_trainings, slope


def ladder(rungs: Sequence[Rung]) -> list[Rung]:
    """The rungs of L-infinity doses, 0 among them."""
    return [rung for rung in rungs if rung.dose.norm == "Linf"]


def dose_slopes(rungs: Sequence[Rung], by: str) -> dict[str, Interval]:
    """{measure: change for a dose of 4 / 255 more}, over all classifiers of L-infinity doses."""
    some = ladder(rungs)
    doses = [rung.dose.radius / 4 for rung in some for _ in rung.robust]
    return {measure: slope(doses, torch.cat([rung.values(measure, by) for rung in some])) for measure in COMPARED}


def main_rung(rungs: Sequence[Rung]) -> Rung:
    """The L-infinity dose above 0 of which there are most classifiers, the smallest of such."""
    return max(ladder(rungs)[1:], key=lambda rung: len(rung.robust))


def contrasts(rungs: Sequence[Rung], by: str) -> dict[str, dict[str, Interval]]:
    """{what: {measure: difference in pairs of seeds}}: the main dose less dose 0, and less its twins.

    Twins are left out where there are fewer than two.
    """
    rung, none = main_rung(rungs), rungs[0]
    found: dict[str, dict[str, Interval]] = {"robust minus standard": {}, "robust minus twin": {}}
    seeds = list(rung.with_twins)
    for measure in COMPARED:
        values = rung.values(measure, by)
        against = none.values(measure, by)[: len(values)]
        found["robust minus standard"][measure] = difference_of_trainings(values, against)
        if len(seeds) > 1:
            twins = rung.values(measure, by, twins=True)
            found["robust minus twin"][measure] = difference_of_trainings(values[seeds], twins)
    return {name: row for name, row in found.items() if row}


def inverter_checks(alike: Sequence[Inverted]) -> dict[str, Interval]:
    """The checks of the inverters as instruments, on classifiers that were trained alike from different seeds.

    "found undisturbed": share found from the logits less that from disturbed ones, which must be above 0;
    "psnr_between_seeds": the PSNR of one classifier less that of the next, which should be near 0;
    "found_class_mean": share that the mean image of the predicted class finds, which knows the class alone.
    """
    disturbed = torch.stack([one.disturbed["found"].float() for one in alike])
    psnr = values_of(alike, "psnr")
    found = {"found_undisturbed": bootstrap((values_of(alike, "found") - disturbed).mean(0))}
    found["found_class_mean"] = proportion(alike[0].scores["class mean"]["found"])
    if len(psnr) > 1:
        found["psnr_between_seeds"] = bootstrap((psnr[0] - psnr[1]).double())
    return found


def training_hours(inverted: Iterable[Inverted | None], trainings: Iterable[DoseTraining]) -> float:
    """Hours of training of all classifiers and inverters, whenever it was; without the runs that became no twin."""
    classifiers = sum(hours for training in trainings for hours in training.hours.values())
    return classifiers + sum(one.hours for one in inverted if one)


def every_inverted(rungs: Sequence[Rung]) -> list[Inverted]:
    """What was measured on the classifiers of all doses and on their twins."""
    return [one for rung in rungs for one in (*rung.robust, *rung.twins) if one]


def record_doses(study: Study, rungs: Sequence[Rung]) -> None:
    """Record every rung's accuracies and scores, slopes, contrasts and checks."""
    for rung in rungs:
        title = f"dose {rung.dose}"
        study.record_interval("accuracy", title, group_accuracy(rung.robust), tolerance=10)
        for by in ("inverter", "ridge"):
            for measure, tolerance in COMPARED.items():
                values = rung.values(measure, by)
                by_seed = values.double().mean(1).tolist()
                study.record_interval(
                    measure, f"{by} {title}", mean_over_trainings(measure, values), tolerance=tolerance, by_seed=by_seed
                )
    for by in ("inverter", "ridge"):
        study.record_rows({f"slope {by}": dose_slopes(rungs, by)}, digits=2, tolerance=None)
        found = contrasts(rungs, by)
        for name, row in found.items():
            study.record_rows({f"{name} {by}": row}, digits=2, tolerance=None)
        if "robust minus twin" not in found:
            for measure in COMPARED:
                study.record(f"{measure}_robust_minus_twin_{by}", None)
                study.record_text(f"{measure}_robust_minus_twin_{by}_ci", "not measured")
    record_inverter_checks(study, rungs[0].robust)
    main = main_rung(rungs)
    study.record_texts(
        main_dose=f"{main.dose}/255",
        main_classifiers=len(main.robust),
        n_twins=len(main.with_twins),
        n_classifiers=sum(len(rung.robust) + len(rung.with_twins) for rung in rungs),
    )


def record_inverter_checks(study: Study, alike: Sequence[Inverted]) -> None:
    """Record the checks of the inverters, see `inverter_checks`."""
    for id, interval in inverter_checks(alike).items():
        measure, _, name = id.partition("_")
        study.record_interval(measure, name, interval, digits=2, tolerance=None)


def group_row(some: Sequence[Inverted], **between: str) -> dict[str, object]:
    """A row of a table: means over classifiers that were trained alike; `between` stands behind their accuracy."""
    ridge = {measure: written(measure, group_mean(some, measure, "ridge")) for measure in ("psnr", "found")}
    return {
        "classifiers": f"{len(some)}",
        "accuracy": group_accuracy(some),
        **between,
        **{measure: group_mean(some, measure) for measure in COMPARED},
        "ridge: PSNR, dB": ridge["psnr"],
        "ridge: found, %": ridge["found"],
    }


def group_mean(some: Iterable[Inverted], measure: str, by: str = "inverter") -> Interval:
    """One measure of the reconstructions from classifiers that were trained alike."""
    return mean_over_trainings(measure, values_of(some, measure, by))


def group_accuracy(some: Iterable[Inverted]) -> Interval:
    """The share of test images of which classifiers are right, on average."""
    return bootstrap(torch.stack([one.right for one in some]).double().mean(0))


def dose_rows(rungs: Sequence[Rung], attacked_at: Dose) -> dict[tuple[str, str], dict[str, object]]:
    """Rows of a table: every dose and its twins, means over their classifiers."""
    rows = {}
    for rung in rungs:
        for kind, some in (("attacked", rung.robust), ("twin", [one for one in rung.twins if one])):
            if some:
                withstood = 100 * torch.cat([one.withstood for one in some]).float().mean()
                attacked = {f"under attack at {attacked_at}/255, %": f"{withstood:.1f}"}
                rows[str(rung.dose), kind if rung.dose.radius else "standard"] = group_row(some, **attacked)
    return rows


def effect_rows(rungs: Sequence[Rung]) -> dict[tuple[str, str], dict[str, Interval]]:
    """Rows of a table: the slope on the dose and the main dose's contrasts, by inverters and by ridge regression."""
    rows = {}
    for by in ("inverter", "ridge"):
        rows[by, "for a dose of 4/255 more"] = dose_slopes(rungs, by)
        for name, row in contrasts(rungs, by).items():
            rows[by, name.replace("robust", f"dose {main_rung(rungs).dose}").replace("minus", "−")] = row
    return rows


def dose_chart(rungs: Sequence[Rung]) -> Figure:
    """PSNR, the share found and perceptual distance against the L-infinity dose: inverters, ridge, and twins."""
    some = ladder(rungs)
    places = [rung.dose.radius for rung in some]

    def line(measure: str, by: str, twins: bool = False) -> list[Interval | None]:
        factor = MEASURES[measure].factor
        return [
            mean_over_trainings(measure, rung.values(measure, by, twins)).times(factor)
            if not twins or rung.with_twins
            else None
            for rung in some
        ]

    groups = {
        MEASURES[measure].heading: {
            "inverter": line(measure, "inverter"),
            "inverter of the twins": line(measure, "inverter", twins=True),
            "ridge regression": line(measure, "ridge"),
        }
        for measure in ("psnr", "found", "perceptual")
    }
    return plots.panels(places, groups, "dose, 255ths")


def floor_psnr(images: DoseImages) -> Interval:
    """PSNR of each test image's own mean colour, which needs no logits."""
    test = images.test.images
    return bootstrap(score(mean_colours(test), test, measures=["psnr"]).psnr)


def dose_pictures(rungs: Sequence[Rung], images: DoseImages, n: int = 8) -> dict[str, Tensor]:
    """Rows of a grid: the first test images and their reconstructions from the first classifier of every dose."""
    rows = {"original": images.test.images[:n]}
    return rows | {f"dose {rung.dose}": rung.robust[0].images[:n].cpu() for rung in rungs}
