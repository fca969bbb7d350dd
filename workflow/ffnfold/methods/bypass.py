"""A control: the FFNs that shared_n replaces are deleted, and their blocks pass the residual stream on.

The norm before a deleted FFN is stored still, though nothing reads it: the size is shared_n's to the parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ffnfold.architecture import consecutive_runs, layer_count
from ffnfold.methods import Built, Inputs
from ffnfold.sharing import bypass_ffns


def build(inputs: Inputs, options: Mapping[str, Any]) -> Built:
    """Delete all FFNs but the first of each run of `options["n"]` blocks.

    Raises:
        InputError: n is outside 1 to the number of blocks.
    """
    runs = consecutive_runs(layer_count(inputs.config), options["n"])
    layers = [layer for run in runs for layer in run[1:]]
    state, config = bypass_ffns(inputs.state, inputs.config, layers)
    return Built(state, config, notes={"bypassed": layers})
