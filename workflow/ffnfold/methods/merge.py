"""merged_n: every block of a group gets the group's averaged FFN; depth and stored parameters stay.

Source: the published study, merged_n, as described. Its notebooks wrote the average to the first block of a run
alone, which is `write: anchor`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ffnfold.architecture import family_of, ffn_names
from ffnfold.grouping import Group
from ffnfold.methods import Built, Inputs
from ffnfold.surgery import group_ffns


def build(inputs: Inputs, options: Mapping[str, Any]) -> Built:
    """Average the aligned FFNs of each group and write the average to all of its blocks.

    With `write: anchor` only the group's reference block gets it.

    Raises:
        InputError: n is outside 1 to the number of blocks.
    """
    family = family_of(inputs.config)

    def assemble(groups: Sequence[Group], ffns: Sequence[Mapping[str, Tensor]]) -> tuple[dict, dict]:
        state = dict(inputs.state)
        for group, ffn in zip(groups, ffns, strict=True):
            for layer in group.members if options["write"] == "all" else (group.anchor,):
                state.update({name: ffn[part].clone() for part, name in ffn_names(family, layer).items()})
        return state, dict(inputs.config)

    groups, ffns, notes = group_ffns(inputs, options, assemble)
    return Built(*assemble(groups, ffns), notes=notes)
