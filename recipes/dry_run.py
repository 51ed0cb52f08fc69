"""What a profile and its recipes need at the papers' scale, found out without data or weights.

    python -m recipes dry-run imagenet

Every network that the profile names is built with random weights, classifies an image and is cut into blocks. Every
recipe behind a folder runs/NAME that the profile names takes one real step, with the losses and the loop of the real
training. On a GPU the step has the recipe's own networks, image size and share of the batch, and the most memory that
it held is printed. On a CPU it has two images and, where the recipe has BigGAN's networks, a thin version of them.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch
import yaml

from invkit.dci.invert import invert_classifier
from invkit.network.classifiers import LIBRARIES, Classifier, load_classifier
from invkit.store import too_deep
from invkit.training import train
from recipes import imagenet
from recipes.imagenet import ARCHITECTURE, PLANS, BlockPlan, LogitPlan

IMAGES, CROP, THIN = 2, 64, 8  # on a CPU: images a step, their pixels where blocks are inverted, BigGAN's width


def main(profile: str = "imagenet") -> None:
    """Print a line for everything that the profile names; raises, in a sentence, where something does not work."""
    networks, recipes = named(profile)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    built = {}
    for name in dict.fromkeys([*networks, *(PLANS[recipe].classifier for recipe in recipes)]):
        classifier = built[name] = build_random(name)
        millions = sum(parameter.numel() for parameter in classifier.model.parameters()) / 1e6
        facts = f"{millions:.1f} million numbers, {classifier.size} pixels, {len(classifier.blocks)} blocks"
        print(f"{name}: {facts}.", flush=True)
    for recipe in recipes:
        plan, began = PLANS[recipe], time.monotonic()
        if isinstance(plan, LogitPlan):
            print(f"{recipe}: {sizes_of(plan, built[plan.classifier].classes)}.", flush=True)
        step(plan, built[plan.classifier].to(device))
        memory = f", at most {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device == "cuda" else ""
        print(f"{recipe}: one step on {device}, {time.monotonic() - began:.0f} s{memory}.", flush=True)


def named(profile: str) -> tuple[list[str], list[str]]:
    """The networks that a profile names, and the recipes of the folders runs/NAME in it; each once, in order."""
    file = Path("profiles") / f"{profile}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in Path("profiles").glob("*.yaml"))) or "none here"
        raise FileNotFoundError(f"There is no profile {profile!r}; there are {known}.")
    try:
        text = file.read_text(encoding="utf-8")
        events = [] if too_deep(text) else yaml.parse(text, yaml.SafeLoader)
        words = list(dict.fromkeys(event.value for event in events if isinstance(event, yaml.ScalarEvent)))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no valid YAML ({' '.join(str(error).split())}): mend it.") from None
    networks = [word for word in words if word.partition(":")[0] in LIBRARIES or word in ARCHITECTURE]
    return networks, [word.removeprefix("runs/") for word in words if word.startswith("runs/")]


def build_random(name: str) -> Classifier:
    """The network of this name with random weights, cut into blocks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = load_classifier(ARCHITECTURE.get(name, name), pretrained=False)
    classifier.blocks  # noqa: B018 (cuts it)
    return classifier


def sizes_of(plan: LogitPlan, classes: int) -> str:
    """How many numbers the plan's own networks have; they are built without memory."""
    with torch.device("meta"):
        networks = imagenet.logit_networks(plan, classes)
    millions = [sum(parameter.numel() for parameter in network.parameters()) / 1e6 for network in networks]
    return "generator {:.1f} million numbers, discriminator {:.1f} million".format(*millions)


def step(plan: LogitPlan | BlockPlan, classifier: Classifier) -> None:
    """One step of the plan's training on noise, where the classifier is. FloatingPointError: a loss is not finite."""
    batch, crop = plan.batch // plan.gpus, classifier.size
    if classifier.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        batch, crop = IMAGES, CROP
        plan = replace(plan, width=min(plan.width, THIN)) if isinstance(plan, LogitPlan) else plan
    if isinstance(plan, LogitPlan):
        images = torch.randint(256, (batch, 3, plan.size, plan.size), dtype=torch.uint8)
        with torch.device(classifier.device):  # on a CPU BigGAN's orthogonal weights would take a minute
            networks = imagenet.logit_networks(plan, classifier.classes)
        batches = imagenet.logit_batches(plan, images, classifier, batch, seed=0)
        players = imagenet.logit_players(plan, *networks, grace=1)
        train(players, batches, steps=1, ema=plan.ema, warmup=0, schedule="constant", progress=False)
    else:
        noise = torch.rand(batch, 3, crop, crop, device=classifier.device)
        sizes = imagenet.block_sizes(plan, classifier)
        schedule = replace(plan.schedule, divide=0, synchronise=1, often=(0.0,) * (len(sizes) - 1) + (1.0,))
        invert_classifier(
            classifier, lambda step, depth: noise, sizes=sizes, schedule=schedule, weights=plan.weights, progress=False
        )
