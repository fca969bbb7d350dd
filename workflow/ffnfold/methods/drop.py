"""A control for compress: as many blocks go, and nothing is averaged.

Source: Men et al. 2024 (ShortGPT, arXiv 2403.03853), section 3, for deletion by block influence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ffnfold.architecture import consecutive_runs, keep_blocks, layer_count
from ffnfold.methods import Built, Inputs


def build(inputs: Inputs, options: Mapping[str, Any]) -> Built:
    """Delete as many blocks as compress does with runs of `options["n"]`.

    By `runs` the first block of each run stays. By `influence` those of least influence in `inputs.moments` go; of
    equal ones the later goes first, as within a run.

    Raises:
        InputError: n is outside 1 to the number of blocks.
    """
    layers = layer_count(inputs.config)
    kept = [run[0] for run in consecutive_runs(layers, options["n"])]
    if options["by"] == "influence":
        influence = inputs.moments.influence().tolist()
        ranked = sorted(range(layers), key=lambda layer: (-influence[layer], layer))
        kept = sorted(ranked[: len(kept)])
    state, config = keep_blocks(inputs.state, inputs.config, kept)
    return Built(state, config, notes={"kept": kept})
