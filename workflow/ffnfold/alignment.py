"""Matching the neurons of two FFNs: streaming correlation of pre-activations, optimal assignment, permutation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ffnfold.architecture import Family, ffn_names


class StreamingCorrelation:
    """Pearson correlation of every neuron of one layer with every neuron of another, for all pairs of layers.

    Batches are added one at a time, so memory does not grow with the number of positions. Sums are kept in
    float64 around the first batch's mean, which keeps the subtraction of the means harmless.

    Args:
        layers: number of layers.
        neurons: neurons of one FFN.
    """

    def __init__(self, layers: int, neurons: int) -> None:
        self.layers, self.neurons, self.count = layers, neurons, 0
        self._shift: Tensor | None = None
        self._sum = torch.zeros(layers, neurons, dtype=torch.float64)
        self._square = torch.zeros(layers, neurons, dtype=torch.float64)
        self._product = {
            (a, b): torch.zeros(neurons, neurons, dtype=torch.float32)
            for a in range(layers)
            for b in range(a + 1, layers)
        }

    def add(self, activations: Tensor) -> None:
        """Add pre-activations of some positions.

        Args:
            activations: (layers, positions, neurons), any float dtype; positions that are padding left out.

        Raises:
            ValueError: the shape is another.
        """
        if activations.ndim != 3 or activations.shape[0] != self.layers or activations.shape[2] != self.neurons:
            raise ValueError(
                f"activations: got shape {tuple(activations.shape)}, "
                f"expected ({self.layers}, positions, {self.neurons})"
            )
        values = activations.to(torch.float32)
        if self._shift is None:
            self._shift = values.mean(dim=1, keepdim=True)
        values = values - self._shift
        self.count += values.shape[1]
        self._sum += values.sum(dim=1, dtype=torch.float64)
        self._square += values.to(torch.float64).square().sum(dim=1)
        for (a, b), product in self._product.items():
            product += values[a].T @ values[b]

    def correlation(self, a: int, b: int) -> np.ndarray:
        """Correlation matrix of layer `a` (rows) with layer `b` (columns): (neurons, neurons), float64.

        A neuron that never varies correlates 0 with every other.

        Raises:
            ValueError: fewer than two positions were added.
        """
        if self.count < 2:
            raise ValueError(f"correlation needs at least 2 positions, got {self.count}")
        if a > b:
            return self.correlation(b, a).T
        if a == b:
            raise ValueError(f"correlation of layer {a} with itself is not kept")
        mean = self._sum / self.count
        deviation = (self._square / self.count - mean.square()).clamp_min(0).sqrt()
        covariance = self._product[a, b].to(torch.float64) / self.count - torch.outer(mean[a], mean[b])
        scale = torch.outer(deviation[a], deviation[b])
        return torch.where(scale > 1e-12, covariance / scale.clamp_min(1e-12), 0.0).clamp(-1, 1).numpy()


def match_neurons(correlation: np.ndarray) -> np.ndarray:
    """The assignment of columns to rows with the largest total correlation.

    Args:
        correlation: (neurons, neurons); rows the reference layer, columns the other.

    Returns:
        int64 (neurons,): entry i is the other layer's neuron that takes the place of the reference's neuron i.

    Source: Hungarian method as scipy.optimize.linear_sum_assignment implements it (Crouse 2016); neuron matching by
    correlation after Li et al. 2016 (arXiv 1511.07543) and Ainsworth et al. 2022 (arXiv 2209.04836).
    """
    rows, columns = linear_sum_assignment(correlation, maximize=True)
    order = np.empty(len(rows), dtype=np.int64)
    order[rows] = columns
    return order


def collect_pre_activations(
    model: nn.Module, family: Family, layers: int, batches: Iterable[Mapping]
) -> Iterable[Tensor]:
    """Outputs of the first FFN matrix at every counted position, one batch at a time.

    Args:
        model: a causal language model in evaluation mode.
        family: where its FFNs are.
        layers: number of blocks.
        batches: mappings with `input_ids` (batch, length) int64 and `attention_mask` (batch, length), 0 on padding; and
            `counted` (batch, length) where other positions are wanted than those attended to.

    Yields:
        (layers, positions, neurons) float32.
    """
    captured: dict[int, Tensor] = {}

    def keep(layer: int):
        def hook(module: nn.Module, inputs: object, output: Tensor) -> None:
            captured[layer] = output.detach()

        return hook

    handles = [
        model.get_submodule(f"{family.blocks.format(layer=layer)}{family.ffn_in}").register_forward_hook(keep(layer))
        for layer in range(layers)
    ]
    try:
        with torch.no_grad():
            for batch in batches:
                model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
                counted = batch.get("counted", batch["attention_mask"]).bool()
                yield torch.stack([captured[layer][counted].float().cpu() for layer in range(layers)])
    finally:
        for handle in handles:
            handle.remove()


def align_pairs(statistics: StreamingCorrelation) -> tuple[np.ndarray, list[dict]]:
    """Match the neurons of all pairs of layers.

    Returns:
        Permutations, int32 (layers, layers, neurons): `[a, b]` puts layer b's neurons into layer a's order
        (the identity on the diagonal); and one row for each pair a < b with the mean correlation of equally numbered
        neurons and of matched ones.
    """
    layers, neurons = statistics.layers, statistics.neurons
    permutations = np.tile(np.arange(neurons, dtype=np.int32), (layers, layers, 1))
    rows = []
    for a in range(layers):
        for b in range(a + 1, layers):
            correlation = statistics.correlation(a, b)
            order = match_neurons(correlation)
            permutations[a, b] = order
            permutations[b, a, order] = np.arange(neurons, dtype=np.int32)
            rows.append(
                {
                    "layer_a": a,
                    "layer_b": b,
                    "mean_correlation_unmatched": float(np.diagonal(correlation).mean()),
                    "mean_correlation_matched": float(correlation[np.arange(neurons), order].mean()),
                    "positions": statistics.count,
                }
            )
    return permutations, rows


def permute_ffn(ffn: Mapping[str, Tensor], order: Tensor, family: Family) -> dict[str, Tensor]:
    """Reorder an FFN's neurons; the function it computes is unchanged.

    Args:
        ffn: in_weight, in_bias (neurons,), out_weight, out_bias (hidden size,).
        order: int64 (neurons,); place i receives neuron `order[i]`.
        family: says along which axes the neurons lie.
    """
    return {
        "in_weight": ffn["in_weight"].index_select(family.hidden_axis_in, order),
        "in_bias": ffn["in_bias"].index_select(0, order),
        "out_weight": ffn["out_weight"].index_select(family.hidden_axis_out, order),
        "out_bias": ffn["out_bias"],
    }


def average_ffn(
    state: Mapping[str, Tensor], family: Family, run: list[int], permutations: np.ndarray
) -> dict[str, Tensor]:
    """The mean of a run's FFNs after each is brought into the order of the run's first block (its anchor).

    Args:
        state: tensor name -> tensor.
        run: block indices; the first is the anchor.
        permutations: (layers, layers, neurons) from `align_pairs`.

    Returns:
        The four FFN tensors, in the anchor's dtype; summed in float64, so that the mean of equal FFNs is exact.

    Source: the published study, merged_n and compressed_n: average of c_fc and c_proj, weights and biases.
    """
    total: dict[str, Tensor] = {}
    for layer in run:
        ffn = {part: state[name] for part, name in ffn_names(family, layer).items()}
        order = torch.from_numpy(np.asarray(permutations[run[0], layer], dtype=np.int64))
        for part, tensor in permute_ffn(ffn, order, family).items():
            total[part] = tensor.double() if layer == run[0] else total[part].add_(tensor)
    anchor = ffn_names(family, run[0])
    return {part: (tensor / len(run)).to(state[anchor[part]].dtype) for part, tensor in total.items()}
