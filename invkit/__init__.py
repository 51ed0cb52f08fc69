"""invkit: how much of an image survives inside a classifier, and can it be recovered from there?

>>> import invkit
>>> inverter = invkit.load_inverter("dci-lite0")
>>> images = invkit.data.load("photos", n=1).images
>>> reconstructions = inverter.reconstruct(images, depth=8)
>>> invkit.metrics.psnr(reconstructions, images) > 20  # dB
tensor([True])

`invkit.train_inverter(classifier, minutes=10)` makes an inverter of one's own classifier.

| name | what it holds |
|---|---|
| load_classifier, load_inverter, load_generator | frozen networks by name |
| train_inverter | an inverter of one's own classifier, in minutes |
| Classifier, Generator | a network to invert, cut into blocks |
| Inverter; ClassifierInverter, GeneratorInverter, LogitInverter | what all inverters can do; the three kinds |
| dci | divide-and-conquer inversion (Dong et al. 2021): `invert_classifier`, `invert_generator`, … |
| ffi | feedforward inversion of logits (Teterwak et al. 2021): `train_inverter`, … |
| data | images by name: `data.load`, `data.Data` |
| network | classifiers, generators, and how they are cut into blocks |
| optimize | inversion by optimisation, image by image |
| metrics, statistics | quality of reconstructions; intervals and tests |
| training, precision | the training loop and its number format |
| attacks | adversarial examples |
| leakage, report | what a classifier gives away at each depth, and a page that shows it |
| store | weights and cards on disk |

Everything is imported when it is first used, so that `import invkit` alone costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from invkit import attacks, data, dci, ffi, leakage, metrics, network, optimize, precision, report, statistics
    from invkit import store as store
    from invkit import training as training
    from invkit.dci.inverter import ClassifierInverter, GeneratorInverter
    from invkit.ffi.inverter import LogitInverter
    from invkit.fit import train_inverter
    from invkit.inverters import Inverter, load_inverter
    from invkit.network.classifiers import Classifier, load_classifier
    from invkit.network.generators import Generator, load_generator

__version__ = "0.1.0"

__all__ = [
    "Classifier", "ClassifierInverter", "Generator", "GeneratorInverter", "Inverter", "LogitInverter", "attacks",
    "data", "dci", "ffi", "leakage", "load_classifier", "load_generator", "load_inverter", "metrics", "network",
    "optimize", "precision", "report", "statistics", "store", "train_inverter", "training",
]  # fmt: skip

_FUNCTIONS = {  # and classes: the module that each is in
    "Classifier": "network.classifiers",
    "ClassifierInverter": "dci.inverter",
    "Generator": "network.generators",
    "GeneratorInverter": "dci.inverter",
    "Inverter": "inverters",
    "LogitInverter": "ffi.inverter",
    "load_classifier": "network.classifiers",
    "load_generator": "network.generators",
    "load_inverter": "inverters",
    "train_inverter": "fit",
}


def __getattr__(name: str):
    if name in _FUNCTIONS:
        return getattr(import_module(f"invkit.{_FUNCTIONS[name]}"), name)
    if name in __all__:
        return import_module(f"invkit.{name}")
    raise AttributeError(f"invkit has no {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
