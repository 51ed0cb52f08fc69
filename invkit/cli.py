"""The command line: `python -m invkit list | describe | invert | report`; see --help.

Every error is one sentence on stderr and exit code 1. `invert` reads all photos before it writes the first file: if one
photo is bad, nothing is written at all, unless it is told to keep going. Then it reads them again, one at a time, so
that memory does not grow with their number. Whatever takes long to import is imported by the commands that need it, so
that `--help` answers at once.
"""

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from invkit.store import as_path, one_line

MANY_PHOTOS = 10  # from so many on, a bar shows the time left
NAMED = re.compile(r"(?<![,(] )\b(output|weights|images|minutes|depths)=")  # arguments in sentences: options here
LONGEST_NAME = 230  # bytes; file systems take 255, and a file has a longer name while it is written


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    return run(_parser().parse_args(arguments))


def run(options: argparse.Namespace) -> int:
    """Call `options.command(options)`; one sentence on stderr where it fails. Returns the exit code."""
    try:
        options.command(options)
    except KeyboardInterrupt as stop:
        print(f"invkit: {stop or 'Stopped by Ctrl-C.'}", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, ImportError, ArithmeticError) as error:
        print(f"invkit: {one_line(_sentence(error))}", file=sys.stderr)
        return 1
    return 0


def _sentence(error: Exception) -> str:
    """Our own errors are sentences, whose "minutes=5" is "--minutes 5" here; the operating system's become one
    ("photos/a.png: Permission denied.")."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    if isinstance(error, ModuleNotFoundError):
        return f"{error}: activate the environment that holds it (source .venv/bin/activate), or install it."
    return NAMED.sub(r"--\1 ", str(error)).replace("trust=True", "--trust")


class Parser(argparse.ArgumentParser):
    """A parser of arguments whose errors, too, are short."""

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m invkit", description="Reconstruct images from inside a network.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("list", help="what there is: inverters with their depths, classifiers")
    command.set_defaults(command=_list)

    command = commands.add_parser("describe", help="the blocks of a classifier, one line for each depth")
    command.add_argument("classifier", metavar="CLASSIFIER", help="such as lite0, timm:resnet50, pkg.mod:factory")
    command.add_argument("--output", metavar="KEY", type=_key, help="which of several outputs are its logits")
    command.set_defaults(command=_describe)

    command = commands.add_parser("invert", help="represent photos inside a network and reconstruct them from there")
    command.add_argument("photos", metavar="PHOTO", nargs="+", type=Path, help="any image file that Pillow reads")
    command.add_argument("--inverter", metavar="NAME", required=True, help="a shipped inverter (see list) or a folder")
    command.add_argument("--depth", metavar="K", type=int, help="the block to reconstruct from (default: the deepest)")
    command.add_argument("--search", metavar="STEPS", type=int, default=0, help="steps of a search: closer, but slow")
    command.add_argument("--out", metavar="DIR", required=True, type=Path, help="made if missing; replaces old results")
    command.add_argument("--keep-going", action="store_true", help="leave out photos that are bad, and name them last")
    command.add_argument("--trust", action="store_true", help="make the network that the inverter's card names, any")
    command.set_defaults(command=_invert)

    command = commands.add_parser("report", help="what a classifier gives away of its images: one page with pictures")
    command.add_argument("classifier", metavar="CLASSIFIER", help="such as torchvision:resnet18, mymodule:factory")
    command.add_argument("--weights", metavar="FILE", help="a .safetensors or .pth state dict for that network")
    command.add_argument("--output", metavar="KEY", type=_key, help="which of several outputs are its logits")
    command.add_argument("--images", metavar="NAME", help="folder:PATH of your own images, or a data set's name")
    command.add_argument("--minutes", metavar="M", type=float, default=10, help="of training (default: 10)")
    command.add_argument("--depths", metavar="K", type=int, nargs="+", help="blocks to reconstruct from; one: up to it")
    command.add_argument("--out", metavar="DIR", required=True, type=Path, help="made if missing; replaces old results")
    command.set_defaults(command=_report)
    return parser


def _key(text: str) -> str | int:
    """The key of an output, or its place."""
    return int(text) if text.isdecimal() else text


def _list(options: argparse.Namespace) -> None:
    from invkit import store

    cards = {name: store.read_card(name) for name in store.shipped()}
    rows = [("inverter", "depths", "inverts", "method", "image size")]
    for name, card in cards.items():
        if "network" in card:  # classifiers are shipped too; they are not inverters
            some = {"dci-gan": "to the latent", "ffi": "the logits"}
            depths = some.get(str(card["method"])) or f"1-{len(list(card.get('shapes') or '?')) - 1}"
            rows.append((name, depths, card["network"], card["method"], f"{card['size']}x{card['size']}"))
    print_table(rows)
    if len(rows) == 1:
        print(f"(none in {store.weights_folder()})")
    names = ["lite0", *(name for name, card in cards.items() if card.get("method") == "classifier")]
    print(f"\nclassifiers: {', '.join(names)}, timm:NAME, torchvision:NAME, pkg.mod:factory")


def _describe(options: argparse.Namespace) -> None:
    from invkit.dci import chain, invert
    from invkit.network.classifiers import load_classifier

    # the blocks do not depend on the weights
    classifier = load_classifier(options.classifier, pretrained=False, output=options.output)
    shapes = chain.map_shapes(classifier)  # up to the last depth that `train_inverter` takes
    kind = {1: "grey images", 3: "images"}.get(classifier.channels, f"{classifier.channels}-channel images")
    print(f"{classifier.name}: {kind} of {classifier.size}x{classifier.size} pixels, {classifier.classes} classes\n")
    rows = [("depth", "block", "output", "convolutions", "stride", "numbers per image number", "can be inverted")]
    for block in classifier.blocks:
        shape, part = "x".join(map(str, block.shape)), math.prod(block.shape) / classifier.channels / classifier.size**2
        can = "no" if block.depth >= len(shapes) else "yes" if block.depth <= invert.deepest(shapes) else "if named"
        row = (str(block.depth), block.name, shape, str(block.convolutions), f"{block.stride:g}", f"{part:.3f}", can)
        rows.append(row)
    print_table(rows)


def _invert(options: argparse.Namespace) -> None:
    results = _result_files(options.photos, options.out)
    import torch
    from tqdm import tqdm

    from invkit.checks import check_depth
    from invkit.data.photos import fit, read_photo, write_png
    from invkit.inverters import load_inverter
    from invkit.metrics import psnr

    inverter = load_inverter(options.inverter, trust=options.trust)
    depth = check_depth(options.depth, inverter.depths, f"{options.inverter} inverts")
    for photo in () if options.keep_going else options.photos:  # a bad one is told before anything is written
        read_photo(photo)
    bad, many = [], len(options.photos) < MANY_PHOTOS
    for photo, (alone, beside) in tqdm(list(zip(options.photos, results, strict=True)), unit="photo", disable=many):
        notes: list[str] = []
        try:
            original, sentence = fit(read_photo(photo, notes), inverter.size)
        except (ValueError, OSError) as error:
            if not options.keep_going:
                raise
            bad.append(_sentence(error))
            continue
        with torch.inference_mode():
            again = inverter.reconstruct(original[None], depth, search=options.search)[0]
        write_png(alone, again)
        write_png(beside, torch.cat([original, again], dim=2))
        print(f"{photo}: {'; '.join([*notes, sentence])}.")
        quality = psnr(again[None], original[None]).item()
        print(f"  {options.inverter}, depth {depth}: PSNR {quality:.1f} dB -> {alone}, {beside}")
    if bad:
        raise ValueError(f"{len(bad)} of {len(options.photos)} photos were left out: {' '.join(bad)}")


def _report(options: argparse.Namespace) -> None:
    from invkit.arguments import check_report

    depths = options.depths[0] if options.depths and len(options.depths) == 1 else options.depths
    arguments = {"weights": options.weights, "images": options.images, "minutes": options.minutes, "depths": depths}
    check_report(options.classifier, out=options.out, **arguments)  # before PyTorch is imported
    from invkit import report

    numbers = report.write_report(options.classifier, options.out, output=options.output, **arguments)
    rows = [("depth", "block", "numbers per image number", "PSNR over mean colour", "found")]
    for one in numbers["depths"]:
        gain, found = f"{one['gain']['value']:+.1f} dB", f"{one['found']['value']:.0%}".replace("%", " %")
        rows.append((str(one["depth"]), one["block"], f"{one['numbers']:.3f}", gain, found))
    print_table(rows)
    print(f"\nThe report: {options.out / 'report.html'}")


def _result_files(photos: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """(reconstruction, side by side) of each photo; ValueError where a result would replace another, or a photo."""
    if as_path(out).exists() and not out.is_dir():
        raise ValueError(f"{out} is a file: name a folder for the results.")
    stems = [photo.stem.casefold() for photo in photos]  # some file systems do not tell A from a
    for photo, stem in zip(photos, stems, strict=True):
        if stems.count(stem) > 1:
            raise ValueError(f"Results of two photos called {photo.stem!r} would replace each other: rename one.")
    files = [(out / f"{photo.stem}_reconstruction.png", out / f"{photo.stem}_side_by_side.png") for photo in photos]
    sources = set(map(os.path.realpath, photos))  # Path.resolve() raises for a loop of links
    for file in (file for pair in files for file in pair):
        if len(os.fsencode(file.name)) > LONGEST_NAME:
            raise ValueError(f"The name of {file.name} is too long for a file: rename the photo.")
        if os.path.realpath(file) in sources:
            raise ValueError(f"The results would replace the photo {file}: choose another folder with --out.")
    return files


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their longest entry, two spaces between them."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(entry.ljust(width) for entry, width in zip(row, widths, strict=True)).rstrip())
