"""The recipes' command line: `python -m recipes train | measure | compare | dry-run`; see --help.

Every error is one sentence on stderr and exit code 1, as of `python -m invkit`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from invkit.cli import Parser, print_table, run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    return run(_parser().parse_args(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m recipes", description="Train the shipped networks from nothing.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("train", help="train a shipped network from nothing; goes on where it was stopped")
    command.add_argument("name", metavar="NAME", help="the network's name")
    command.add_argument("--folder", metavar="DIR", required=True, type=Path, help="where checkpoints and weights go")
    command.add_argument("--scale", type=float, default=1.0, help="share of the published training steps (default: 1)")
    command.add_argument("--minutes", type=float, help="how long it may take, instead of a scale")
    command.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU where there is one")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(command=_train)

    command = commands.add_parser("measure", help="measure an inverter on what its training kept aside, on its card")
    command.add_argument("inverter", metavar="NAME", help="a shipped inverter (see python -m invkit list) or a folder")
    command.add_argument("--data", metavar="NAME", help="the data set to measure on (default: the one on the card)")
    command.set_defaults(command=_measure)

    command = commands.add_parser("compare", help="figures of weights trained again beside those of the shipped ones")
    command.add_argument("folder", metavar="DIR", type=Path, help="where make weights left them")
    command.set_defaults(command=_compare)

    command = commands.add_parser("dry-run", help="build all that a profile names, one step each, memory per GPU")
    command.add_argument("profile", metavar="PROFILE", nargs="?", default="imagenet")
    command.set_defaults(command=_dry_run)
    return parser


def _train(options: argparse.Namespace) -> None:
    from recipes import table

    length = {"scale": options.scale, "minutes": options.minutes, "device": options.device}
    card = table.train_recipe(options.name, folder=options.folder, seed=options.seed, **length)
    hours = f" in {card['hours']} hours" if "hours" in card else ""
    print(f"{options.name}: {card['steps']} steps{hours}, weights in {options.folder}")


def _measure(options: argparse.Namespace) -> None:
    from recipes import cards

    figures = cards.measure_inverter(options.inverter, options.data)
    rows = [("figure", "value", "95 % interval", "unit", "n")]
    for name, figure in figures.items():
        low, high = figure["ci95"]
        rows.append((name, f"{figure['value']:.3f}", f"{low:.3f} to {high:.3f}", figure["unit"], str(figure["n"])))
    print_table(rows)


def _compare(options: argparse.Namespace) -> None:
    from recipes import cards

    print_table([("name", "figure", "shipped", "trained again"), *cards.compare_with_shipped(options.folder)])


def _dry_run(options: argparse.Namespace) -> None:
    from recipes import dry_run

    dry_run.main(options.profile)


if __name__ == "__main__":
    sys.exit(main())
