from itertools import permutations

import numpy as np
import pytest
from ffnfold.errors import InputError
from ffnfold.grouping import Group, _improved, _partitions, _starts, _within, choose_groups
from hypothesis import given, settings
from hypothesis import strategies as st


def members(groups):
    return [list(group.members) for group in groups]


def symmetric(seed, layers):
    values = np.random.default_rng(seed).uniform(0, 1, (layers, layers))
    values = (values + values.T) / 2
    np.fill_diagonal(values, 1.0)
    return values


def total(parts, similarity):
    return sum(similarity[a, b] for part in parts for a in part for b in part if a < b)


def best_total(similarity, sizes):
    """The greatest total over all orders of the blocks, cut into the sizes."""
    ends = np.cumsum(sizes)
    return max(
        total([order[end - size : end] for size, end in zip(sizes, ends, strict=True)], similarity)
        for order in permutations(range(len(similarity)))
    )


def test_runs_are_the_default():
    groups, notes = choose_groups(8, {"n": 3})
    assert groups == [Group((0, 1, 2), 0), Group((3, 4, 5), 3), Group((6, 7), 6)] and notes == {}
    assert choose_groups(8, {"n": 3, "groups": "runs", "reference": "first"}) == (groups, {})


def test_n_of_one_leaves_every_block_alone():
    alone = [Group((layer,), layer) for layer in range(4)]
    for kind in ("runs", "similarity"):
        options = {"n": 1, "groups": kind, "reference": "medoid"}
        assert choose_groups(4, options, symmetric(0, 4)) == (alone, {})
    groups, notes = choose_groups(4, {"n": 1, "groups": "window"}, cost=lambda groups: 2.0)
    assert groups == alone and notes == {"window_nats": {"0-0": 2.0}}


def test_the_cheapest_window_is_the_only_group():
    nats = {0: 3.0, 1: 2.5, 2: 2.0, 3: 2.0}
    seen = []

    def cost(groups):
        assert sorted(layer for group in groups for layer in group.members) == list(range(6))
        (window,) = (group for group in groups if len(group.members) > 1)
        seen.append(window.members)
        return nats[window.members[0]]

    groups, notes = choose_groups(6, {"n": 3, "groups": "window", "reference": "first"}, cost=cost)
    assert seen == [(0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5)]
    assert groups == [Group((0,), 0), Group((1,), 1), Group((2, 3, 4), 2), Group((5,), 5)]  # a tie: the first
    assert notes == {"window_nats": {"0-2": 3.0, "1-3": 2.5, "2-4": 2.0, "3-5": 2.0}}


def test_a_window_whose_model_is_broken_is_not_chosen():
    costs = iter([float("nan"), 9.0, float("inf")])
    groups, notes = choose_groups(4, {"n": 2, "groups": "window"}, cost=lambda groups: next(costs))
    assert members(groups) == [[0], [1, 2], [3]]
    assert notes == {"window_nats": {"0-1": None, "1-2": 9.0, "2-3": None}}


def test_like_blocks_are_found_wherever_they_stand():
    similarity = np.full((6, 6), 0.1)
    for a, b in ((0, 3), (0, 5), (3, 5), (1, 2), (1, 4), (2, 4)):
        similarity[a, b] = similarity[b, a] = 0.8
    groups, notes = choose_groups(6, {"n": 3, "groups": "similarity"}, similarity)
    assert members(groups) == [[0, 3, 5], [1, 2, 4]] and notes == {}
    assert [group.anchor for group in groups] == [0, 1]


def test_equal_similarity_gives_the_runs():
    assert members(choose_groups(7, {"n": 3, "groups": "similarity"}, np.ones((7, 7)))[0]) == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
    ]


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([(6, 2), (6, 3), (7, 3), (7, 2), (7, 5), (6, 4), (5, 5)]))
def test_similarity_groups_are_the_best_partition(seed, case):
    layers, n = case
    similarity = symmetric(seed, layers)
    groups = members(choose_groups(layers, {"n": n, "groups": "similarity"}, similarity)[0])
    sizes = [n] * (layers // n) + [layers % n] * (layers % n > 0)
    assert sorted(map(len, groups), reverse=True) == sizes
    assert sorted(block for group in groups for block in group) == list(range(layers))
    assert groups == sorted(groups) and all(group == sorted(group) for group in groups)
    assert total(groups, similarity) == pytest.approx(best_total(similarity, sizes))


@pytest.mark.parametrize(("n", "ways"), [(2, 10395), (3, 15400), (4, 5775), (5, 8316), (6, 462), (8, 495), (12, 1)])
def test_number_of_partitions_of_twelve_blocks(n, ways):
    assert _partitions([n] * (12 // n) + [12 % n] * (12 % n > 0)) == ways


@pytest.mark.parametrize(("layers", "n"), [(16, 4), (17, 5), (24, 2)])
def test_many_blocks_are_grouped_by_swaps(layers, n):
    """Planted groups are found; and no swap betters what is found among random similarities."""
    order = np.random.default_rng(layers).permutation(layers)
    planted = sorted(sorted(order[start : start + n].tolist()) for start in range(0, layers, n))
    similarity = 0.2 * symmetric(1, layers)
    for part in planted:
        similarity[np.ix_(part, part)] += 0.5
    assert members(choose_groups(layers, {"n": n, "groups": "similarity"}, similarity)[0]) == planted

    similarity = symmetric(2, layers)
    groups = members(choose_groups(layers, {"n": n, "groups": "similarity"}, similarity)[0])
    runs = [list(range(start, min(start + n, layers))) for start in range(0, layers, n)]
    assert sorted(map(len, groups)) == sorted(map(len, runs))
    found = total(groups, similarity)
    assert found > total(runs, similarity)
    for one in range(len(groups)):
        for other in range(one):
            for i in range(len(groups[one])):
                for j in range(len(groups[other])):
                    swapped = [list(group) for group in groups]
                    swapped[one][i], swapped[other][j] = groups[other][j], groups[one][i]
                    assert total(swapped, similarity) <= found + 1e-9


def test_swaps_gain_in_every_step_and_keep_the_sizes():
    similarity = symmetric(3, 10)
    np.fill_diagonal(similarity, 0.0)
    runs = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    starts = list(_starts(runs, similarity))
    assert starts[0] == runs and starts[2] == [[0, 3, 6, 9], [1, 4, 7, 2], [5, 8]]
    for start in starts:
        assert sorted(block for part in start for block in part) == list(range(10))
        better = _improved(start, similarity)
        assert [len(part) for part in better] == [4, 4, 2]
        assert _within(better, similarity) >= _within(start, similarity)


def test_the_medoid_is_most_like_the_others():
    similarity = np.eye(5)
    for a, b, value in ((0, 1, 0.2), (0, 2, 0.1), (1, 2, 0.7), (3, 4, 0.9)):
        similarity[a, b] = similarity[b, a] = value
    # 0: 0.2 + 0.1; 1: 0.2 + 0.7; 2: 0.1 + 0.7. Two members always tie.
    groups, _ = choose_groups(5, {"n": 3, "reference": "medoid"}, similarity)
    assert groups == [Group((0, 1, 2), 1), Group((3, 4), 3)]


def test_a_tie_of_medoids_goes_to_the_first():
    similarity = np.full((3, 3), 0.1)
    similarity[1, 1] = 5.0  # what a block is to itself does not count
    assert choose_groups(3, {"n": 3, "reference": "medoid"}, similarity)[0] == [Group((0, 1, 2), 0)]


def test_a_window_has_a_medoid_too():
    similarity = np.eye(4)
    similarity[1, 2] = similarity[2, 1] = similarity[2, 3] = similarity[3, 2] = 0.5
    options = {"n": 3, "groups": "window", "reference": "medoid"}
    groups, _ = choose_groups(4, options, similarity, lambda groups: -groups[-1].anchor)
    assert groups == [Group((0, 1, 2), 1), Group((3,), 3)]  # the first window ends with block 3 alone: -3 is below -2


@pytest.mark.parametrize("n", [0, 5])
def test_n_out_of_bounds(n):
    with pytest.raises(InputError, match="n is out of bounds"):
        choose_groups(4, {"n": n, "groups": "window"}, cost=lambda groups: 0.0)


@pytest.mark.parametrize(("key", "value"), [("groups", "similarity"), ("reference", "medoid")])
def test_similarity_without_an_alignment(key, value):
    with pytest.raises(InputError, match=f"{value} with align: none"):
        choose_groups(4, {"n": 2, "align": "none", key: value})
