"""merged_n: every block of a run gets the average of the run's FFNs; depth and stored parameters stay.

Source: the published study, merged_n, as described. Its notebooks wrote the average to the first block of a run
alone, which is `write: anchor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ffnfold.alignment import average_ffn
from ffnfold.architecture import consecutive_runs, family_of, ffn_names, layer_count
from ffnfold.methods import Built, Inputs


def build(inputs: Inputs, options: Mapping[str, Any]) -> Built:
    """Average the aligned FFNs of each run of `options["n"]` blocks and write the average to all of them.

    With `write: anchor` only the first block of a run gets it.

    Raises:
        InputError: n is outside 1 to the number of blocks.
    """
    family = family_of(inputs.config)
    runs = consecutive_runs(layer_count(inputs.config), options["n"])
    state = dict(inputs.state)
    for run in runs:
        average = average_ffn(inputs.state, family, run, inputs.permutations)
        for layer in run if options["write"] == "all" else run[:1]:
            for part, name in ffn_names(family, layer).items():
                state[name] = average[part].clone()
    return Built(state, dict(inputs.config), notes={"runs": runs})
