"""Unstructured magnitude pruning to an exact number of non-zero parameters.

Source: Han et al. 2015 (arXiv 1506.02626); the published pruned_104M is scope `embedding` with keep 104,694,536.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ffnfold.architecture import family_of, layer_count
from ffnfold.errors import InputError
from ffnfold.methods import Built, Inputs


def scope_names(config: Mapping[str, Any], scope: str) -> list[str]:
    """Names of the tensors that may lose weights: `embedding`, `blocks` (matrices only) or `all`."""
    family = family_of(config)
    matrices = [
        f"{family.blocks.format(layer=layer)}{name}"
        for layer in range(layer_count(config))
        for name in family.block_matrices
    ]
    return {"embedding": [family.embedding], "blocks": matrices, "all": [family.embedding, *matrices]}[scope]


def zero_smallest(tensors: Mapping[str, Tensor], zeros: int) -> dict[str, Tensor]:
    """Copies of the tensors with exactly `zeros` more zeros: the non-zero entries that are smallest in magnitude.

    Ties are broken by position, in the order of the mapping, so that the count is exact.

    Raises:
        ValueError: there are fewer non-zero entries than that.
    """
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors.values()])
    magnitude = flat.abs()
    available = int(torch.count_nonzero(magnitude))
    if zeros > available:
        raise ValueError(f"cannot zero {zeros:,} of {available:,} non-zero weights")
    if zeros:
        magnitude[magnitude == 0] = torch.inf  # zeros already there do not count as removed
        threshold = torch.kthvalue(magnitude, zeros).values
        below = magnitude < threshold
        tied = torch.nonzero(magnitude == threshold).reshape(-1)[: zeros - int(below.sum())]
        flat[below] = 0
        flat[tied] = 0
    sizes = [tensor.numel() for tensor in tensors.values()]
    return {
        name: part.reshape(tensor.shape).clone()
        for (name, tensor), part in zip(tensors.items(), flat.split(sizes), strict=True)
    }


def build(inputs: Inputs, options: Mapping[str, Any]) -> Built:
    """Zero the smallest weights in scope until `keep` (or `keep_share` of the) parameters of the model are not zero.

    Raises:
        InputError: the scope holds too few weights to reach the target.
    """
    present = sum(int(torch.count_nonzero(tensor)) for tensor in inputs.state.values())
    keep = options["keep"] if "keep" in options else round(options["keep_share"] * present)
    names = scope_names(inputs.config, options["scope"])
    in_scope = {name: inputs.state[name] for name in names}
    available = sum(int(torch.count_nonzero(tensor)) for tensor in in_scope.values())
    zeros = present - keep
    if not 0 <= zeros <= available:
        raise InputError(
            "the pruning target cannot be reached",
            where=f"keep: {keep}, scope: {options['scope']}",
            got=f"{present:,} non-zero parameters, {available:,} of them in scope",
            expected=f"keep between {present - available:,} and {present:,}",
            remedy="choose a wider scope (`all`) or another target",
        )
    pruned = zero_smallest(in_scope, zeros)
    return Built(
        {**inputs.state, **pruned},
        dict(inputs.config),
        frozen_zeros=names,
        notes={"zeros_added": zeros, "nonzero_parameters": keep, "scope": options["scope"]},
    )
