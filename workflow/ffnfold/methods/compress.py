"""compressed_n: each run of n blocks becomes its first block, with the average of the run's FFNs.

Depth becomes ceil(layers / n).

Source: the published study, compressed_n: the anchor keeps its attention and norms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ffnfold.alignment import average_ffn
from ffnfold.architecture import consecutive_runs, family_of, ffn_names, keep_blocks, layer_count
from ffnfold.methods import Built, Inputs


def build(inputs: Inputs, options: Mapping[str, Any]) -> Built:
    """Average the aligned FFNs of each run of `options["n"]` blocks into the run's first block and delete the others.

    Raises:
        InputError: n is outside 1 to the number of blocks.
    """
    family = family_of(inputs.config)
    runs = consecutive_runs(layer_count(inputs.config), options["n"])
    state = dict(inputs.state)
    for run in runs:
        average = average_ffn(inputs.state, family, run, inputs.permutations)
        state.update({name: average[part] for part, name in ffn_names(family, run[0]).items()})
    state, config = keep_blocks(state, inputs.config, [run[0] for run in runs])
    return Built(state, config, notes={"runs": runs})
