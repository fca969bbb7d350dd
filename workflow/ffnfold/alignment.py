"""Matching the neurons of two FFNs: correlation of pre-activations or product of weights, assignment, permutation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from ffnfold.architecture import Family, ffn_names


class StreamingCorrelation:
    """Pearson correlation of every neuron of one layer with every neuron of another, for pairs of layers.

    Batches are added one at a time, so memory does not grow with the number of positions. Sums are kept in
    float64 around the first batch's mean, which keeps the subtraction of the means harmless.

    Args:
        layers: number of layers.
        neurons: neurons of one FFN.
        pairs: pairs of layers, the lower first; None for all. Each takes 4 bytes x neurons squared.
    """

    def __init__(self, layers: int, neurons: int, pairs: Sequence[tuple[int, int]] | None = None) -> None:
        self.layers, self.neurons, self.count = layers, neurons, 0
        self.pairs = list(combinations(range(layers), 2) if pairs is None else pairs)
        self._shift: Tensor | None = None
        self._sum = torch.zeros(layers, neurons, dtype=torch.float64)
        self._square = torch.zeros(layers, neurons, dtype=torch.float64)
        self._product = {pair: torch.zeros(neurons, neurons, dtype=torch.float32) for pair in self.pairs}

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
        for layer in range(self.layers):  # one at a time: the float64 copy of all would be the largest array here
            self._square[layer] += values[layer].to(torch.float64).square().sum(dim=0)
        for (a, b), product in self._product.items():
            product.addmm_(values[a].T, values[b])

    def correlation(self, a: int, b: int) -> np.ndarray:
        """Correlation matrix of layer `a` (rows) with layer `b` (columns): (neurons, neurons), float64.

        A neuron that never varies correlates 0 with every other.

        Raises:
            ValueError: fewer than two positions were added, or the pair is not among those kept.
        """
        if self.count < 2:
            raise ValueError(f"correlation needs at least 2 positions, got {self.count}")
        if a > b:
            return self.correlation(b, a).T
        if (a, b) not in self._product:
            raise ValueError(f"correlation of layer {a} with layer {b} is not kept")
        mean = self._sum / self.count
        deviation = (self._square / self.count - mean.square()).clamp_min(0).sqrt()
        covariance = self._product[a, b].to(torch.float64).div_(self.count).addr_(mean[a], mean[b], alpha=-1)
        scale = torch.outer(deviation[a], deviation[b])
        constant = scale <= 1e-12
        return covariance.div_(scale.clamp_min_(1e-12)).masked_fill_(constant, 0.0).clamp_(-1, 1).numpy()


def match_neurons(likeness: np.ndarray) -> np.ndarray:
    """The assignment of columns to rows with the largest total likeness.

    Args:
        likeness: float (neurons, neurons); rows the reference layer, columns the other.

    Returns:
        int64 (neurons,): entry i is the other layer's neuron that takes the place of the reference's neuron i.

    Source: Hungarian method as scipy.optimize.linear_sum_assignment implements it (Crouse 2016); neuron matching by
    correlation after Li et al. 2016 (arXiv 1511.07543) and Ainsworth et al. 2022 (arXiv 2209.04836).
    """
    # What is taken off whole rows and columns changes no assignment, and good potentials save most of the search.
    cost = _reduced(np.negative(likeness, dtype=np.float64))
    cost -= _column_potentials(cost)
    rows, columns = linear_sum_assignment(_reduced(cost))
    order = np.empty(len(rows), dtype=np.int64)
    order[rows] = columns
    return order


def _reduced(cost: np.ndarray) -> np.ndarray:
    """Costs, changed in place so that the least of each row and of each column is 0."""
    for axis in (1, 0):
        cost -= cost.min(axis=axis, keepdims=True)
    return cost


def _column_potentials(cost: np.ndarray, sharpness: float = 20.0, steps: int = 20) -> np.ndarray:
    """Near-optimal dual variables of the columns, from the assignment's entropic relaxation.

    Args:
        cost: float64 (neurons, neurons), reduced.
        sharpness: the costs' standard deviation as a multiple of the relaxation's temperature.
        steps: rounds of scaling rows and columns.

    Returns:
        float64 (neurons,). Rounded, so that columns that are alike stay so.

    Source: Cuturi 2013 (arXiv 1306.0895), algorithm 1 (Sinkhorn's scaling).
    """
    temperature = cost.std() / sharpness
    if not temperature > 0:
        return np.zeros(len(cost))
    kernel = np.multiply(cost, -1 / temperature, dtype=np.float32)
    np.exp(kernel, out=kernel)
    columns = np.ones(len(cost), dtype=np.float32)
    for _ in range(steps):
        columns = 1 / ((1 / (kernel @ columns)) @ kernel)
    potentials = temperature * np.log(columns.astype(np.float64)).round(3)
    return np.nan_to_num(potentials, nan=0.0, posinf=0.0, neginf=0.0)


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
                # The blocks alone: the output head's logits are not needed.
                model.base_model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)
                counted = batch.get("counted", batch["attention_mask"]).bool()
                # Each is let go of as it is copied, so that two copies at most are held.
                yield torch.stack([captured.pop(layer)[counted].float().cpu() for layer in range(layers)])
    finally:
        for handle in handles:
            handle.remove()


def align_pairs(statistics: StreamingCorrelation, threads: int = 1) -> tuple[np.ndarray, list[dict]]:
    """Match the neurons of the pairs of layers in `statistics` by the correlation of their pre-activations.

    Args:
        threads: pairs matched at a time; each takes about 24 bytes x neurons squared.

    Returns:
        Permutations, int32 (layers, layers, neurons): `[a, b]` puts layer b's neurons into layer a's order
        (the identity on the diagonal, and for a pair that is not in `statistics`); and one row for each pair a < b
        with the mean correlation of equally numbered neurons and of matched ones.

    Raises:
        ValueError: the statistics hold fewer than two positions.
    """
    unit = np.ones((statistics.layers, statistics.neurons))
    permutations, rows = _align(statistics.correlation, unit, statistics.pairs, "correlation", threads)
    return permutations, [{**row, "positions": statistics.count} for row in rows]


def neuron_weights(state: Mapping[str, Tensor], family: Family, layer: int) -> Tensor:
    """All weights of each neuron of a block's FFN: incoming, bias, outgoing; float32 (neurons, 2 x hidden size + 1)."""
    ffn = {part: state[name].float() for part, name in ffn_names(family, layer).items()}
    incoming = ffn["in_weight"].movedim(family.hidden_axis_in, 0)
    outgoing = ffn["out_weight"].movedim(family.hidden_axis_out, 0)
    return torch.cat([incoming, ffn["in_bias"][:, None], outgoing], dim=1)


def weight_products(state: Mapping[str, Tensor], family: Family, a: int, b: int) -> np.ndarray:
    """Inner products of all neurons of block `a` (rows) with all of block `b` (columns), over all their weights.

    Args:
        state: tensor name -> tensor.
        family: where the FFNs are.

    Returns:
        float32 (neurons, neurons).

    Source: Ainsworth et al. 2022 (Git Re-Basin, arXiv 2209.04836), section 3.2, with the bias among the weights.
    """
    return (neuron_weights(state, family, a) @ neuron_weights(state, family, b).T).numpy()


def align_by_weights(
    state: Mapping[str, Tensor], family: Family, layers: int, threads: int = 1
) -> tuple[np.ndarray, list[dict]]:
    """Match the neurons of all pairs of layers by their weights: the largest sum of inner products.

    No text is read. The mean cosine tells how like two FFNs are; the products themselves depend on their scale.

    Args:
        state: tensor name -> tensor.
        family: where the FFNs are.
        layers: number of blocks.
        threads: pairs matched at a time; each takes about 24 bytes x neurons squared.

    Returns:
        Permutations as from `align_pairs`; and one row for each pair a < b with the mean cosine of equally numbered
        neurons and of matched ones.

    Source: Ainsworth et al. 2022 (Git Re-Basin, arXiv 2209.04836), section 3.2, "matching weights". Restricted to one
    FFN: all FFNs read and write the same residual stream, so no other permutation has to be found with it.
    """
    norms = np.stack([neuron_weights(state, family, layer).double().norm(dim=1).numpy() for layer in range(layers)])
    pairs = list(combinations(range(layers), 2))
    return _align(lambda a, b: weight_products(state, family, a, b), norms, pairs, "cosine", threads)


def _align(
    likeness: Callable[[int, int], np.ndarray],
    norms: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    measure: str,
    threads: int,
) -> tuple[np.ndarray, list[dict]]:
    """Match pairs of layers a < b by `likeness(a, b)`, (neurons, neurons).

    Args:
        norms: float64 (layers, neurons); what a likeness is divided by, both neurons', to give the measure.
        measure: `correlation` or `cosine`; names the columns of the rows.
    """
    layers, neurons = norms.shape
    torch.set_num_threads(threads)
    identity = np.arange(neurons, dtype=np.int32)

    def match(pair: tuple[int, int]) -> tuple[np.ndarray, float, float]:
        a, b = pair
        matrix = likeness(a, b)
        order = match_neurons(matrix)

        def mean(columns: np.ndarray) -> float:
            scale = norms[a] * norms[b, columns]
            return float(np.divide(matrix[identity, columns], scale, out=np.zeros(neurons), where=scale > 0).mean())

        return order, mean(identity), mean(order)

    permutations = np.tile(identity, (layers, layers, 1))
    rows = []
    with ThreadPoolExecutor(threads) as pool:  # the search releases Python's lock, and threads share the matrices
        for (a, b), (order, unmatched, matched) in zip(pairs, pool.map(match, pairs), strict=True):
            permutations[a, b] = order
            permutations[b, a, order] = identity
            means = {f"mean_{measure}_unmatched": unmatched, f"mean_{measure}_matched": matched}
            rows.append({"layer_a": a, "layer_b": b, **means})
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
