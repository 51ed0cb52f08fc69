"""Chapter 18, what its page records, tables and draws; `study.chapters.method_or_knowledge` trains and measures."""

from __future__ import annotations

from collections import Counter

import torch
from matplotlib.figure import Figure
from torch import Tensor

from invkit.statistics import Interval, bootstrap
from study import plots
from study.baselines import mean_colours
from study.chapters.architectures import title_of
from study.chapters.method_or_knowledge import (
    DIVIDED,
    FEEDFORWARD,
    KNOWLEDGE,
    MEASURED,
    NOISE,
    OPTIMISED,
    PHOTOS,
    RIDGE,
    SEARCH,
    SYNTHETIC,
    Cell,
    Cells,
    Grid,
    best_cell,
    which_matters,
    worth_of_dividing,
    worth_of_photos,
)
from study.notebook import Study, listed
from study.scores import MEASURES, Scores, mean_over_trainings, score, written

SHOWN = (  # of the pictures: rows
    (OPTIMISED, NOISE), (DIVIDED, NOISE), (DIVIDED, SYNTHETIC), (SEARCH, SYNTHETIC), (DIVIDED, PHOTOS),
    (FEEDFORWARD, SYNTHETIC), (FEEDFORWARD, PHOTOS), (RIDGE, PHOTOS),
)  # fmt: skip


def mean_of_cell(cell: Cell, measure: str) -> Interval:
    """The mean of a measure over images, with its 95 % interval."""
    return mean_over_trainings(measure, cell.scores[measure][None])


def floor_scores(photos: Tensor) -> Scores:
    """Of each photo's own mean colour, which needs no representation."""
    return score(mean_colours(photos), photos, measures=["psnr", "perceptual"])


def above_colour(cells: Cells, floor: Scores) -> bool:
    """Whether any cell's PSNR is surely above that of the photos' own mean colours; else nothing is decided by it."""
    return any(cell.scores.minus(floor)["psnr"].low > 0 for cell in cells.values())


def what_matters(cells: Cells, floor: Scores, measure: str) -> str:
    """`which_matters` by a measure; "nothing decided" by PSNR where no cell is above the photos' own mean colours."""
    if measure == "psnr" and not above_colour(cells, floor):
        return "nothing decided"
    return which_matters(worth_of_photos(cells, measure), worth_of_dividing(cells, measure))


def record_cells_of_grid(study: Study, grid: Grid) -> None:
    """Record every cell by every measure, and both effects at every place."""
    for (network, place), cells in grid.items():
        for (method, knowledge), cell in cells.items():
            title = f"{network} {place} {method} {knowledge}"
            for measure, tolerance in MEASURED.items():
                study.record_interval(measure, title, mean_of_cell(cell, measure), tolerance=tolerance)
        for name, effect in (("photos", worth_of_photos), ("dividing", worth_of_dividing)):
            row = {measure: effect(cells, measure) for measure in MEASURED}
            study.record_rows({f"worth of {name} {network} {place}": row}, digits=2, tolerance=None)


def record_grid_answer(study: Study, grid: Grid, floor: Scores) -> None:
    """Record what the first lines of the page say, of the first and of the last place of the first network."""
    study.record_interval("psnr", "own mean colour", bootstrap(floor.psnr))
    network = next(iter(grid))[0]
    places = [place for name, place in grid if name == network]
    study.record_texts(network_title=title_of(network), first_place=places[0], last_place=_after(places[-1]))
    for where, place in (("first", places[0]), ("last", places[-1])):
        for name, effect in (("photos", worth_of_photos), ("dividing", worth_of_dividing)):
            for measure in ("psnr", "found"):
                value = effect(grid[network, place], measure)
                study.record_interval(measure, f"{name} {where}", value, digits=2, tolerance=None)
        method, knowledge = best_cell(grid[network, place], "found")
        study.record_text(f"best_{where}", f"{method} ({knowledge})", compared=False)
        best = mean_of_cell(grid[network, place][method, knowledge], "found")
        study.record_interval("found", f"best {where}", best, tolerance=None)
    for measure in ("psnr", "found"):
        words = Counter(what_matters(cells, floor, measure) for cells in grid.values())
        study.record_text(f"matters_{measure}", _counted(words, len(grid)), compared=False)


def _after(place: str) -> str:
    return f"the {place}" if not place.startswith("depth") else place


def _counted(words: Counter, places: int) -> str:
    """How often which of both matters more: "knowledge at 5 of 12 places, the method at 4, …"."""
    phrases = {
        "knowledge": "what is known of images matters more at {}",
        "method": "the method matters more at {}",
        "not told apart": "the two are not told apart at {}",
        "nothing decided": "nothing is decided at {}, where no method beats the photos' own mean colours",
    }
    some = [phrase.format(f"{words[word]} of {places} places") for word, phrase in phrases.items() if words[word]]
    return listed(some)


def record_grid_controls(study: Study, grid: Grid, candidates: Tensor) -> None:
    """Record the checks: what the first place gives, and what reconstructions of other photos find."""
    network, place = next(iter(grid))
    cell = grid[network, place][DIVIDED, SYNTHETIC]
    study.record_interval("found", "control positive", mean_of_cell(cell, "found"), tolerance=25)
    other = score(cell.images.roll(1, 0), candidates, measures=["found"]).found
    study.record_text("control_negative", f"{int(other.sum())} of {len(other)}")


def effect_rows_of_grid(grid: Grid, floor: Scores) -> dict[tuple[str, str], dict[str, object]]:
    """Rows of a table: at every place, what photos are worth, what dividing is worth, and which matters more."""
    rows = {}
    for (network, place), cells in grid.items():
        row = {}
        for measure in ("psnr", "found"):
            photos, dividing = worth_of_photos(cells, measure), worth_of_dividing(cells, measure)
            heading = MEASURES[measure].heading
            row |= {
                f"photos: {heading}": written(measure, photos, "+"),
                f"dividing: {heading}": written(measure, dividing, "+"),
                f"by {MEASURES[measure].title}": what_matters(cells, floor, measure),
            }
        rows[title_of(network), place] = row
    return rows


def cell_rows(grid: Grid, network: str) -> dict[tuple[str, str, str], dict[str, object]]:
    """Rows of a table: every method with every knowledge at every place of a network."""
    return {
        (place, method, knowledge): {
            **{measure: mean_of_cell(cell, measure) for measure in MEASURED},
            "training, s": f"{3600 * cell.hours:.0f}",
            "ms an image": f"{1000 * cell.seconds:.1f}",
        }
        for (name, place), cells in grid.items()
        if name == network
        for (method, knowledge), cell in sorted(cells.items(), key=lambda item: _order(item[0]))
    }


def _order(key: tuple[str, str]) -> tuple[int, int]:
    methods = (OPTIMISED, DIVIDED, SEARCH, FEEDFORWARD, RIDGE)
    return methods.index(key[0]), KNOWLEDGE.index(key[1])


def grid_chart(grid: Grid, measure: str, floor: Scores) -> Figure:
    """One measure of every cell by place: a row of charts a network, one chart a method, one line a knowledge."""
    networks = list(dict.fromkeys(network for network, _ in grid))
    most = max((_places(grid, network) for network in networks), key=len)
    factor, groups = MEASURES[measure].factor, {}

    def line(network: str, method: str, knowledge: str) -> list[Interval | None]:
        cells = [grid[network, place].get((method, knowledge)) for place in _places(grid, network)]
        values = [cell and mean_of_cell(cell, measure).times(factor) for cell in cells]
        return values + [None] * (len(most) - len(values))

    for network in networks:
        for method in (DIVIDED, FEEDFORWARD, SEARCH):
            lines = {knowledge: line(network, method, knowledge) for knowledge in KNOWLEDGE}
            none = [None] * len(most)
            lines["optimisation, from grey"] = line(network, OPTIMISED, NOISE) if method == SEARCH else none
            lines["ridge regression, photos"] = line(network, RIDGE, PHOTOS) if method == FEEDFORWARD else none
            groups[f"{title_of(network)}: {method}"] = lines
    reference = {title: {"mean colour": floor[measure].mean().item()} for title in groups} if measure in floor else None
    figure = plots.panels(range(len(most)), groups, "place", reference=reference)
    low, high = zip(*(axis.get_ylim() for axis in figure.axes[: len(groups)]), strict=True)
    for i, axis in enumerate(figure.axes[: len(groups)]):
        short = [_short(place) for place in _places(grid, networks[i // 3])]
        axis.set_xticks(range(len(short)), short)
        axis.set_ylim(min(low), max(high))  # one scale, so that methods can be compared
        axis.tick_params(labelbottom=True)
    return figure


def _places(grid: Grid, network: str) -> list[str]:
    return [place for name, place in grid if name == network]


def _short(place: str) -> str:
    """What a place is called below a chart: "4", "pen." or "logits"."""
    return "pen." if place.startswith("pen") else place.removeprefix("depth ")


def grid_pictures(
    grid: Grid, network: str, photo: Tensor, which: int = 0
) -> tuple[dict[str, Tensor], dict[str, list[str]], list[str]]:
    """One photo (3, S, S), the test photo of that number, as a network's places give it back: rows, captions, columns.

    A method that a place does not have is left white.
    """
    places = _places(grid, network)
    rows, captions = {"original": photo.expand(len(places), -1, -1, -1)}, {}
    for key in SHOWN:
        cells = [grid[network, place].get(key) for place in places]
        if any(cells):
            title = f"{key[0]}, {key[1]}"
            white = torch.ones_like(photo)
            rows[title] = torch.stack([cell.images[which].to(photo.device) if cell else white for cell in cells])
            captions[title] = [f"{cell.scores.psnr[which]:.1f}" if cell else "" for cell in cells]
    return rows, captions, [_short(place) for place in places]


def record_costs(study: Study, grid: Grid) -> None:
    """Record the hours of all trainings together, and how many there are."""
    hours = [cell.hours for cells in grid.values() for (method, _), cell in cells.items() if method != SEARCH]
    study.record("training_hours", sum(hours), unit="hours", digits=2, tolerance=None)
    study.record_text("trainings", f"{sum(h > 0 for h in hours)}")
