"""Which blocks form a group, and which block of a group is its anchor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, combinations
from typing import Any

import numpy as np

from ffnfold.architecture import consecutive_runs
from ffnfold.errors import InputError

EXACT_PARTITIONS = 20_000  # up to so many ways to group the blocks, the best is found exactly; 12 blocks have 15,400
_TIE = 1e-12  # sums that differ by less are equal: the order of their terms alone can do that


@dataclass(frozen=True)
class Group:
    """Blocks whose FFNs become one.

    Args:
        members: block indices, ascending; a block that stays alone is a group of one.
        anchor: the member that the others are aligned to.
    """

    members: tuple[int, ...]
    anchor: int


def choose_groups(
    layers: int,
    options: Mapping[str, Any],
    similarity: np.ndarray | None = None,
    cost: Callable[[list[Group]], float] | None = None,
) -> tuple[list[Group], dict[str, Any]]:
    """Put every block into one group, as a variant's options say.

    Args:
        layers: number of blocks.
        options: the variant's line in the study: n, groups (`runs` if not given) and reference (`first`).
        similarity: float64 (layers, layers), symmetric; for `groups: similarity` and `reference: medoid`.
        cost: nats a token on the validation split of the model that these groups give; for `groups: window`.

    Returns:
        The groups in the order of their first members, and facts for the build's record: for `window` the cost of each,
        `window_nats`, keyed by its first and last block ("0-3"), null where it is not finite; for others nothing.

    Raises:
        InputError: n is below 1 or above the number of blocks, or the similarity is needed and not given.

    Source: `window` after Verma, Murray and Duh 2025 (arXiv 2501.06126): the window of neighbouring FFNs is chosen by
    evaluation before any training.
    """
    n, kind, reference = options["n"], options.get("groups", "runs"), options.get("reference", "first")
    parts = consecutive_runs(layers, n)
    if similarity is None and (kind == "similarity" or reference == "medoid"):
        raise InputError(
            "how like the blocks are is not known, since their neurons are not matched",
            where="groups" if kind == "similarity" else "reference",
            got=f"{'similarity' if kind == 'similarity' else 'medoid'} with align: {options.get('align')}",
            remedy="set align to activations or weights, or groups to runs or window and reference to first",
        )

    def anchored(parts: Sequence[Sequence[int]]) -> list[Group]:
        medoid = reference == "medoid"
        return [Group(tuple(part), _medoid(part, similarity) if medoid else part[0]) for part in parts]

    if kind == "similarity":
        parts = _most_alike(parts, similarity)
    if kind != "window":
        return anchored(parts), {}
    assert cost is not None
    windows = {
        f"{start}-{start + n - 1}": anchored(_window(layers, start, n))
        for start in (range(layers - n + 1) if n > 1 else [0])  # windows of one block are all the same
    }
    nats = {name: float(cost(groups)) for name, groups in windows.items()}
    best = min(nats, key=lambda name: nats[name] if math.isfinite(nats[name]) else math.inf)
    return windows[best], {"window_nats": {name: v if math.isfinite(v) else None for name, v in nats.items()}}


def _window(layers: int, start: int, n: int) -> list[list[int]]:
    """The blocks from `start` on as one part of n, each other block alone."""
    alone = [[layer] for layer in range(layers) if not start <= layer < start + n]
    return sorted([*alone, list(range(start, start + n))])


def _medoid(part: Sequence[int], similarity: np.ndarray) -> int:
    """The member with the greatest sum of similarity to the others; the first of several."""
    inside = similarity[np.ix_(part, part)]
    sums = inside.sum(axis=1) - np.diagonal(inside)
    return part[int(np.flatnonzero(sums >= sums.max() - _TIE)[0])]


# --------------------------------------------------------------------------------------------- groups of like FFNs


def _most_alike(runs: list[list[int]], similarity: np.ndarray) -> list[list[int]]:
    """Parts of the runs' sizes with the greatest sum of similarity between the members of a part.

    Exact where there are few ways; else the best that swaps of two blocks lead to from three starts.

    Args:
        runs: consecutive runs, all of one size but for a last one that may be smaller.
        similarity: float64 (blocks, blocks), symmetric.
    """
    pairs = np.array(similarity, dtype=np.float64)
    np.fill_diagonal(pairs, 0.0)
    sizes = [len(run) for run in runs]
    if _partitions(sizes) <= EXACT_PARTITIONS:
        parts = _best_partition(sizes, pairs)
    else:
        found = [_improved(start, pairs) for start in _starts(runs, pairs)]
        totals = [_within(parts, pairs) for parts in found]
        parts = found[int(np.flatnonzero(np.array(totals) >= max(totals) - _TIE)[0])]
    return sorted(sorted(part) for part in parts)


def _partitions(sizes: Sequence[int]) -> int:
    """In how many ways sum(sizes) blocks can be put into unnamed parts of these sizes."""
    ways = math.factorial(sum(sizes))
    for size in sizes:
        ways //= math.factorial(size)
    for size in set(sizes):
        ways //= math.factorial(sizes.count(size))
    return ways


def _within(parts: Sequence[Sequence[int]], pairs: np.ndarray) -> float:
    """Sum of similarity over all pairs of blocks of one part."""
    return sum(float(pairs[np.ix_(part, part)].sum()) / 2 for part in parts)


def _best_partition(sizes: Sequence[int], pairs: np.ndarray) -> list[list[int]]:
    """The best of all partitions: the lowest block that is left takes each possible company in turn."""
    full = sizes[0]

    @cache
    def value(part: tuple[int, ...]) -> float:
        return _within([part], pairs)

    @cache
    def best(left: tuple[int, ...]) -> tuple[float, tuple[tuple[int, ...], ...]]:
        if not left:
            return 0.0, ()
        found, chosen = -math.inf, ()
        small = len(left) % full  # the smaller part's size, as long as it is not filled
        for size in [full] * (len(left) >= full) + [small] * (small > 0):
            for company in combinations(left[1:], size - 1):
                part = (left[0], *company)
                total, others = best(tuple(block for block in left if block not in part))
                total += value(part)
                if total > found + _TIE:
                    found, chosen = total, (part, *others)
        return found, chosen

    return [list(part) for part in best(tuple(range(sum(sizes))))[1]]


def _starts(runs: list[list[int]], pairs: np.ndarray) -> Iterator[list[list[int]]]:
    """Where the swaps begin: the runs; parts filled one after the other with what is most alike; blocks far apart."""
    yield runs
    left, filled = list(range(len(pairs))), []
    for run in runs:
        part = [left.pop(0)]
        while len(part) < len(run):
            part.append(left.pop(int(pairs[np.ix_(left, part)].sum(axis=1).argmax())))
        filled.append(part)
    yield filled
    order = [block for first in range(len(runs)) for block in range(first, len(pairs), len(runs))]
    ends = list(accumulate(len(run) for run in runs))
    yield [order[end - len(run) : end] for run, end in zip(runs, ends, strict=True)]


def _improved(parts: Sequence[Sequence[int]], pairs: np.ndarray) -> list[list[int]]:
    """Swap the two blocks of different parts that gain most, until no swap gains."""
    part_of = np.empty(len(pairs), dtype=np.int64)
    for index, part in enumerate(parts):
        part_of[list(part)] = index
    blocks = np.arange(len(pairs))
    while True:
        to_part = pairs @ (part_of[:, None] == np.arange(len(parts)))  # (blocks, parts)
        to_other = to_part[:, part_of] - to_part[blocks, part_of][:, None]  # what block i gains in block j's part
        gain = np.where(part_of[:, None] == part_of, -np.inf, to_other + to_other.T - 2 * pairs)
        first, second = np.unravel_index(gain.argmax(), gain.shape)
        if not gain[first, second] > _TIE:
            return [np.flatnonzero(part_of == index).tolist() for index in range(len(parts))]
        part_of[first], part_of[second] = part_of[second], part_of[first]
