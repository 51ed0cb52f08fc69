"""invkit: how much of an image survives inside a classifier, and can it be read back?

``import invkit`` alone exposes every module (``invkit.data``, ``invkit.metrics``, ...) and the two entry points
``invkit.load_classifier`` and ``invkit.load_inverter``; each is imported when first used, so that importing the package
costs nothing.
"""

from importlib import import_module
from pathlib import Path

__version__ = "0.1.0"

_FUNCTIONS = {"load_classifier": "network.classifiers", "load_inverter": "inverters"}
_MODULES = {path.stem for path in Path(__file__).parent.glob("[!_]*") if path.suffix in ("", ".py")}

__all__ = sorted(_FUNCTIONS) + sorted(_MODULES)


def __getattr__(name):
    if name in _FUNCTIONS:
        return getattr(import_module(f"invkit.{_FUNCTIONS[name]}"), name)
    if name in _MODULES:
        return import_module(f"invkit.{name}")
    raise AttributeError(f"invkit has no {name!r}; it has {', '.join(__all__)}")


def __dir__():
    return __all__
