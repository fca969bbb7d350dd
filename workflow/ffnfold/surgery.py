"""From a variant's options to its groups and the FFN of each: what merge, share and compress have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ffnfold.architecture import layer_count
from ffnfold.averaging import represent_group
from ffnfold.grouping import Group, choose_groups
from ffnfold.methods import Inputs

#: (groups, their FFNs) -> the model's tensors and configuration
Assemble = Callable[[Sequence[Group], Sequence[Mapping[str, Tensor]]], tuple[Mapping[str, Tensor], Mapping[str, Any]]]


def group_ffns(
    inputs: Inputs, options: Mapping[str, Any], assemble: Assemble
) -> tuple[list[Group], list[dict[str, Tensor]], dict[str, Any]]:
    """The groups of a variant and the FFN that stands for each.

    Args:
        inputs: what the method builds from.
        options: n, groups, reference, align, average and fit.
        assemble: makes the model of given groups, so that windows can be compared.

    Returns:
        Groups, one FFN for each (parts as `ffn_names` has them), and notes for the build's record.

    Raises:
        InputError: n is outside 1 to the number of blocks, or groups need a similarity that there is none of.
    """

    def represent(groups: Sequence[Group]) -> list[dict[str, Tensor]]:
        return [represent_group(inputs, options, group) for group in groups]

    def cost(groups: Sequence[Group]) -> float:
        return inputs.validation_nats(*assemble(groups, represent(groups)))

    groups, notes = choose_groups(layer_count(inputs.config), options, inputs.similarity, cost)
    ffns = represent(groups)
    if options["fit"]["steps"]:
        ffns = inputs.fitter(ffns, groups, options["fit"])
    facts = {"groups": [list(group.members) for group in groups], "anchors": [group.anchor for group in groups]}
    return groups, ffns, {**facts, **notes}
