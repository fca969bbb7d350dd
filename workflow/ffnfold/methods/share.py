"""shared_n: as merged_n, but a group's FFN is stored once, and its blocks are tied to it in training too.

With a rank, each block of a group adds low-rank products to the shared matrices, which start as the best
approximation of what sets the block apart.

Source: tying after Verma, Murray and Duh 2025 (arXiv 2501.06126); low-rank products from a truncated singular value
decomposition of the residuals after Bae et al. 2024 (arXiv 2410.20672).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ffnfold.architecture import Family, family_of
from ffnfold.averaging import aligned_ffn
from ffnfold.errors import InputError
from ffnfold.grouping import Group
from ffnfold.methods import Built, Inputs
from ffnfold.sharing import DELTAS, delta_name, share_ffns
from ffnfold.surgery import group_ffns


def build(inputs: Inputs, options: Mapping[str, Any]) -> Built:
    """Tie the blocks of each group to its averaged FFN.

    Raises:
        InputError: n is outside 1 to the number of blocks, or the rank above what the matrices can have.
    """
    family = family_of(inputs.config)

    def assemble(groups: Sequence[Group], ffns: Sequence[Mapping[str, Tensor]], deltas: Mapping = {}) -> tuple:
        return share_ffns(inputs.state, inputs.config, [group.members for group in groups], ffns, deltas)

    groups, ffns, notes = group_ffns(inputs, options, assemble)
    deltas = {}
    if options["rank"]:
        orders = None if options["align"] == "none" else inputs.permutations
        for group, ffn in zip(groups, ffns, strict=True):
            for layer in group.members if len(group.members) > 1 else ():
                own = aligned_ffn(inputs.state, family, layer, group.anchor, orders)
                deltas[layer] = low_rank_deltas(own, ffn, family, options["rank"])
    state, config = assemble(groups, ffns, deltas)
    trained = None
    if options["train"] == "deltas":
        trained = sorted(delta_name(family, layer, name) for layer in deltas for name in DELTAS)
    return Built(state, config, trained=trained, notes=notes)


def low_rank_deltas(
    own: Mapping[str, Tensor], shared: Mapping[str, Tensor], family: Family, rank: int
) -> dict[str, Tensor]:
    """What brings the shared matrices nearest to a block's own, among products of that rank (Frobenius norm).

    Args:
        own: the block's FFN in the shared one's neuron order.
        shared: the group's FFN; biases are not corrected.
        rank: at most the smaller side of the matrices.

    Returns:
        The matrices of `sharing.TiedFFN`, float32; each product's singular values go half to either factor.

    Raises:
        InputError: the rank is above the matrices'.

    Source: Eckart and Young 1936.
    """
    matrices = {}
    for side in ("in", "out"):
        residual = own[f"{side}_weight"] - shared[f"{side}_weight"]
        residual = residual if family.hidden_axis_in == 1 else residual.T  # a Linear keeps (out, in)
        if rank > min(residual.shape):
            raise InputError(
                "the rank is more than the FFN's matrices can have",
                where="rank",
                got=rank,
                expected=f"at most {min(residual.shape)}",
                remedy="choose a smaller rank; at the largest one nothing is saved",
            )
        left, values, right = torch.linalg.svd(residual, full_matrices=False)
        root = values[:rank].sqrt()
        # Where nothing is to be corrected one factor starts at 1: with both at 0 no gradient would reach either.
        matrices[f"delta_{side}_down"] = (left[:, :rank] * torch.where(root > 0, root, 1.0)).contiguous()
        matrices[f"delta_{side}_up"] = (root[:, None] * right[:rank]).contiguous()
    return matrices
