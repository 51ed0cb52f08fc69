"""Old names, until the notebooks use the new ones."""

from study.chapters.gan_inversion import *  # noqa: F403
