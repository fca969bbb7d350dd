"""compressed_n: each group of n blocks becomes its reference block, with the average of the group's FFNs.

Depth becomes ceil(layers / n) with runs or groups by similarity, layers - n + 1 with one window.

Source: the published study, compressed_n: the anchor keeps its attention and norms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ffnfold.architecture import family_of, ffn_names, keep_blocks
from ffnfold.grouping import Group
from ffnfold.methods import Built, Inputs
from ffnfold.surgery import group_ffns


def build(inputs: Inputs, options: Mapping[str, Any]) -> Built:
    """Average the aligned FFNs of each group into its reference block and delete the group's other blocks.

    Raises:
        InputError: n is outside 1 to the number of blocks.
    """
    family = family_of(inputs.config)

    def assemble(groups: Sequence[Group], ffns: Sequence[Mapping[str, Tensor]]) -> tuple[dict, dict]:
        state = dict(inputs.state)
        for group, ffn in zip(groups, ffns, strict=True):
            state.update({name: ffn[part] for part, name in ffn_names(family, group.anchor).items()})
        return keep_blocks(state, inputs.config, sorted(group.anchor for group in groups))

    groups, ffns, notes = group_ffns(inputs, options, assemble)
    return Built(*assemble(groups, ffns), notes=notes)
