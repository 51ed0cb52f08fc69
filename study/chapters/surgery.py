"""Old names, until the notebooks use the new ones."""

from invkit.metrics import distance  # noqa: F401
from study.chapters.image_surgery import *  # noqa: F403
from study.chapters.image_surgery import OUTSIDERS, SURGERIES, Response, Surgery, Told  # noqa: F401
from study.chapters.logit_surgery import *  # noqa: F403
from study.chapters.logit_surgery import Measured as Outcome  # noqa: F401
from study.surgery import curve_of, seen, slopes  # noqa: F401
from study.surgery import reconstruct_each as read  # noqa: F401
