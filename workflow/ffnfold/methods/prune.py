"""Unstructured pruning to an exact number of non-zero parameters, by magnitude or by Wanda's score.

Source: Han et al. 2015 (arXiv 1506.02626); the published pruned_104M is scope `embedding` with keep 104,694,536. Wanda:
Sun et al. 2023 (arXiv 2306.11695), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
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


def _available(tensors: Mapping[str, Tensor], zeros: int) -> int:
    """Number of non-zero entries; ValueError where there are fewer than `zeros`."""
    available = sum(int(torch.count_nonzero(tensor)) for tensor in tensors.values())
    if zeros > available:
        raise ValueError(f"cannot zero {zeros:,} of {available:,} non-zero weights")
    return available


def zero_smallest(tensors: Mapping[str, Tensor], zeros: int) -> dict[str, Tensor]:
    """Copies of the tensors with exactly `zeros` more zeros: the non-zero entries that are smallest in magnitude.

    Ties are broken by position, in the order of the mapping, so that the count is exact.

    Args:
        tensors: name -> float32 tensor.
        zeros: number of entries to zero.

    Raises:
        ValueError: there are fewer non-zero entries than that.
    """
    available = _available(tensors, zeros)
    pruned = {}
    threshold, tied = 0.0, 0
    if zeros:
        # One array for all magnitudes, partitioned in place: a full-size model allows few copies.
        magnitude, start = np.empty(available, dtype=np.float32), 0
        for tensor in tensors.values():
            values = tensor[tensor != 0].abs_().numpy()
            magnitude[start : start + len(values)] = values
            start += len(values)
        magnitude.partition(zeros - 1)
        threshold = float(magnitude[zeros - 1])
        tied = zeros - int(np.count_nonzero(magnitude[:zeros] < magnitude[zeros - 1]))
        del magnitude
    for name, tensor in tensors.items():
        pruned[name] = tensor.clone(memory_format=torch.contiguous_format)
        if zeros:
            size = tensor.abs()
            pruned[name][size < threshold] = 0  # zeros that are there stay, and do not count
            places = torch.nonzero((size == threshold).reshape(-1)).reshape(-1)[:tied]
            pruned[name].view(-1)[places] = 0
            tied -= len(places)
    return pruned


def share_out(total: int, counts: Tensor) -> Tensor:
    """Whole numbers that sum to `total`, in proportion to `counts` and none above its count.

    The largest remainders are rounded up; equal ones by position.

    Args:
        total: at most the sum of `counts`.
        counts: int64 (parts,), not negative.

    Returns:
        int64 (parts,).
    """
    whole = max(1, int(counts.sum()))
    shares = counts * total // whole
    remainders = counts * total % whole
    up = torch.argsort(remainders, descending=True, stable=True)[: total - int(shares.sum())]
    shares[up] += 1
    return shares


def zero_by_wanda(
    tensors: Mapping[str, Tensor], input_squares: Mapping[str, Tensor], input_axis: int, zeros: int
) -> dict[str, Tensor]:
    """Copies of the matrices with exactly `zeros` more zeros, the same share of each output's non-zero weights.

    Within an output those go whose |weight| x root mean square of the input feature is smallest; ties by position.
    What divides unevenly is shared out by largest remainder.

    Args:
        tensors: name -> float32 matrix.
        input_squares: name -> (in features,), mean square of each input feature.
        input_axis: axis of the matrices along which the inputs lie.
        zeros: number of entries to zero.

    Raises:
        ValueError: there are fewer non-zero entries than that.

    Source: Sun et al. 2023 (Wanda, arXiv 2306.11695), section 3: equation 1, compared within each output. The norm over
    positions and the root mean square differ by one factor for all weights of a matrix.
    """
    _available(tensors, zeros)
    present = [torch.count_nonzero(tensor, dim=input_axis) for tensor in tensors.values()]
    quotas = share_out(zeros, torch.cat(present)).split([len(counts) for counts in present])
    pruned = {}
    for (name, tensor), quota in zip(tensors.items(), quotas, strict=True):
        weights = tensor if input_axis == 1 else tensor.T  # (outputs, inputs)
        score = weights.abs() * input_squares[name].sqrt()
        score[weights == 0] = torch.inf  # zeros already there do not count as removed
        order = score.argsort(dim=1, stable=True)
        goes = torch.zeros_like(score, dtype=torch.bool)
        goes.scatter_(1, order, torch.arange(score.shape[1]) < quota[:, None])
        pruned[name] = weights.masked_fill(goes, 0)
        pruned[name] = (pruned[name] if input_axis == 1 else pruned[name].T).contiguous()
    return pruned


def build(inputs: Inputs, options: Mapping[str, Any]) -> Built:
    """Zero the smallest weights in scope until `keep` (or `keep_share` of the) parameters of the model are not zero.

    Smallest by `options["score"]`: `magnitude`, or `wanda`, which needs `inputs.moments`.

    Raises:
        InputError: the scope holds too few weights to reach the target, or has weights that Wanda cannot score.
    """
    scope, wanda = options["scope"], options.get("score", "magnitude") == "wanda"
    if wanda and scope != "blocks":
        raise InputError(
            "Wanda scores a weight by its input, and the token embedding has no input features",
            where=f"score: wanda, scope: {scope}",
            expected="scope: blocks",
            remedy="set scope: blocks, or score: magnitude",
        )
    present = sum(int(torch.count_nonzero(tensor)) for tensor in inputs.state.values())
    keep = options["keep"] if "keep" in options else round(options["keep_share"] * present)
    names = scope_names(inputs.config, scope)
    in_scope = {name: inputs.state[name] for name in names}
    available = sum(int(torch.count_nonzero(tensor)) for tensor in in_scope.values())
    zeros = present - keep
    if not 0 <= zeros <= available:
        raise InputError(
            "the pruning target cannot be reached",
            where=f"keep: {keep}, scope: {scope}",
            got=f"{present:,} non-zero parameters, {available:,} of them in scope",
            expected=f"keep between {present - available:,} and {present:,}",
            remedy="choose a wider scope (`all`) or another target",
        )
    if wanda:
        squares = {name: inputs.moments.input_square(name) for name in names}
        pruned = zero_by_wanda(in_scope, squares, family_of(inputs.config).hidden_axis_out, zeros)
    else:
        pruned = zero_smallest(in_scope, zeros)
    return Built(
        {**inputs.state, **pruned},
        dict(inputs.config),
        frozen_zeros=names,
        notes={"zeros_added": zeros, "nonzero_parameters": keep, "scope": scope},
    )
