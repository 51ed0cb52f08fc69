"""Images by name: `load("glyphs")`, `load("folder:PATH")`, … (`invkit.data.sources` has the table of names)."""

from invkit.data.images import Data
from invkit.data.sources import load, load_bytes

__all__ = ["Data", "load", "load_bytes"]
