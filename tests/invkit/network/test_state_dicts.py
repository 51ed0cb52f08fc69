"""Weights from a file go into every network that they fit."""

import torch
from torch import nn

from invkit.network import state_dicts


class Versioned(nn.Linear):
    """Refuses a state that does not say which version it is of, as torchvision's MNASNet does."""

    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *more):
        assert local_metadata.get("version") in (1, 2), "version should be set to 1 or 2"
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *more)


def test_a_network_that_asks_for_the_version_of_its_state_is_told(tmp_path):
    saved, fresh = nn.Sequential(Versioned(2, 3)), nn.Sequential(Versioned(2, 3))
    torch.save({f"module.{key}": tensor for key, tensor in saved.state_dict().items()}, tmp_path / "mine.pth")
    state_dicts.put_into(fresh, tmp_path / "mine.pth", "mine")
    assert torch.equal(fresh[0].weight, saved[0].weight) and torch.equal(fresh[0].bias, saved[0].bias)
