"""The FFN that stands for a group of blocks: their mean, their regression, or the anchor's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffnfold.alignment import permute_ffn
from ffnfold.architecture import Family, family_of, ffn_names
from ffnfold.grouping import Group
from ffnfold.methods import Inputs

ALPHA = 0.9  # what is left of the inner products' off-diagonal entries; Jin et al.'s usual value
RIDGE = 1e-6  # of the mean diagonal entry of the summed inner products


def own_ffn(state: Mapping[str, Tensor], family: Family, layer: int) -> dict[str, Tensor]:
    """A block's four FFN tensors by part, shared with `state`."""
    return {part: state[name] for part, name in ffn_names(family, layer).items()}


def _order(permutations: np.ndarray | None, anchor: int, layer: int) -> Tensor | None:
    """Which neuron of `layer` takes each place of the anchor's, int64 (neurons,); None where none moves."""
    if permutations is None or layer == anchor:
        return None
    return torch.from_numpy(np.asarray(permutations[anchor, layer], dtype=np.int64))


def aligned_ffn(
    state: Mapping[str, Tensor], family: Family, layer: int, anchor: int, permutations: np.ndarray | None
) -> dict[str, Tensor]:
    """A block's FFN with its neurons in the anchor's order; the function it computes is unchanged.

    Args:
        state: tensor name -> tensor.
        layer, anchor: block indices.
        permutations: int32 (layers, layers, neurons) from the alignment; None leaves all neurons in their places.

    Returns:
        in_weight, in_bias (neurons,), out_weight, out_bias (hidden size,); tensors may be shared with `state`.
    """
    ffn, order = own_ffn(state, family, layer), _order(permutations, anchor, layer)
    return ffn if order is None else permute_ffn(ffn, order, family)


def mean_ffn(
    state: Mapping[str, Tensor], family: Family, group: Group, permutations: np.ndarray | None
) -> dict[str, Tensor]:
    """The mean of a group's FFNs, each in the anchor's order.

    Args:
        state, permutations: as for `aligned_ffn`.
        group: blocks, and the anchor among them.

    Returns:
        The four FFN tensors in the anchor's dtype; summed in float64, so that the mean of equal float32 FFNs is exact.

    Source: the published study, merged_n and compressed_n: average of c_fc and c_proj, weights and biases.
    """
    own = own_ffn(state, family, group.anchor)
    total = {part: torch.zeros_like(tensor, dtype=torch.float64) for part, tensor in own.items()}
    for layer in group.members:
        for part, tensor in aligned_ffn(state, family, layer, group.anchor, permutations).items():
            total[part] += tensor
    return {part: (total[part] / len(group.members)).to(tensor.dtype) for part, tensor in own.items()}


def regress(maps: Sequence[Tensor], moments: Iterable[Tensor], alpha: float = ALPHA, ridge: float = RIDGE) -> Tensor:
    """The linear map whose outputs are closest to those of several maps, each on its own inputs.

        W = (sum of G_l + r I)^-1 (sum of G_l W_l + r mean of W_l)

    solved as the mean plus (sum of G_l + r I)^-1 sum of G_l (W_l - mean), so that equal maps come back as they are. In
    directions that no input takes, W is the mean.

    Args:
        maps: W_l, float64 (inputs, outputs); the last input is the constant 1, so the last row is the bias.
        moments: G_l, float (inputs, inputs), the second moments of l's inputs, in the order of `maps`; not changed.
        alpha: factor of the off-diagonal entries of G_l. Those with the constant are scaled like all others, which
            makes G_l a mixture of itself and its diagonal, still positive semi-definite. Were they spared, it could
            become indefinite where features have large means.
        ridge: r as a share of the mean diagonal entry of the sum of G_l.

    Returns:
        float64 (inputs, outputs).

    Raises:
        torch.linalg.LinAlgError: the sum is not positive definite, as it may be with an alpha of 1.

    Source: Jin et al. 2022 (RegMean, arXiv 2212.09849), section 3: equation 2, and the reduced non-diagonal items.
    There biases are averaged apart; here they are regressed with the weights.
    """
    mean = sum(maps[1:], maps[0]) / len(maps)
    left = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    right = torch.zeros_like(mean)
    for own, moment in zip(maps, moments, strict=True):
        scaled = moment.double() * alpha
        scaled.diagonal().copy_(moment.diagonal())
        left += scaled
        right.addmm_(scaled, own - mean)
    left.diagonal().add_(ridge * left.diagonal().mean())
    return mean + torch.cholesky_solve(right, torch.linalg.cholesky(left))


def regression_ffn(
    state: Mapping[str, Tensor],
    family: Family,
    group: Group,
    permutations: np.ndarray | None,
    moments: Any,
    alpha: float = ALPHA,
    ridge: float = RIDGE,
) -> dict[str, Tensor]:
    """The FFN whose two linear maps, biases included, are closest to those of the group on calibration text.

    Each map is regressed by itself (see `regress`), each member on its own inputs, neurons in the anchor's order.

    Args:
        state, permutations: as for `aligned_ffn`.
        group: blocks, and the anchor among them.
        moments: `ffnfold.moments.Moments` of the base.

    Returns:
        The four FFN tensors in the anchor's dtype.
    """
    members = [aligned_ffn(state, family, layer, group.anchor, permutations) for layer in group.members]

    def ordered_moment(layer: int) -> Tensor:
        moment, order = moments.ffn_out(layer), _order(permutations, group.anchor, layer)
        if order is None:
            return moment
        order = torch.cat([order, torch.tensor([len(order)])])  # the constant stays last
        return moment.index_select(0, order).index_select(1, order)

    sides = (
        ("in", family.hidden_axis_in == 0, moments.ffn_in),
        ("out", family.hidden_axis_out == 1, ordered_moment),
    )
    result = {}
    for side, outputs_first, moment in sides:
        maps = [_affine(ffn[f"{side}_weight"], ffn[f"{side}_bias"], outputs_first) for ffn in members]
        solved = regress(maps, map(moment, group.members), alpha, ridge)
        result[f"{side}_weight"] = solved[:-1].T if outputs_first else solved[:-1]
        result[f"{side}_bias"] = solved[-1]
    own = own_ffn(state, family, group.anchor)
    return {part: result[part].to(tensor.dtype).contiguous() for part, tensor in own.items()}


def _affine(weight: Tensor, bias: Tensor, outputs_first: bool) -> Tensor:
    """A linear map as one matrix on (x, 1): float64 (in features + 1, out features)."""
    return torch.cat([(weight.T if outputs_first else weight).double(), bias.double()[None]])


def represent_group(inputs: Inputs, options: Mapping[str, Any], group: Group) -> dict[str, Tensor]:
    """The FFN that stands for a group.

    Args:
        inputs: the base; its permutations where options["align"] is not `none`, its moments for a regression.
        options: average (`mean`, `regression` or `anchor`) and align.
        group: blocks, and the anchor among them.

    Returns:
        in_weight, in_bias (neurons,), out_weight, out_bias (hidden size,) in the anchor's dtype. The tensors of a group
        of one, and of `anchor`, are the base's own, unchanged.
    """
    family = family_of(inputs.config)
    if len(group.members) == 1 or options["average"] == "anchor":
        return own_ffn(inputs.state, family, group.anchor)
    permutations = None if options["align"] == "none" else inputs.permutations
    if options["average"] == "regression":
        return regression_ffn(inputs.state, family, group, permutations, inputs.moments)
    return mean_ffn(inputs.state, family, group, permutations)
