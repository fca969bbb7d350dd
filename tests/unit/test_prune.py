import numpy as np
import pytest
import torch
from ffnfold.errors import InputError
from ffnfold.methods import REGISTRY, Inputs
from ffnfold.methods.prune import scope_names, share_out, zero_by_wanda, zero_smallest
from ffnfold.moments import Moments
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def base(make_gpt2, state_of):
    """A model of 5 blocks with made-up moments: the deeper the block, the less influence, but for a tie of two."""
    state, config = state_of(make_gpt2(layers=5))
    generator = torch.Generator().manual_seed(0)
    moments = {
        f"input_square.{name}": torch.rand(state[name].shape[0], generator=generator)
        for name in scope_names(config, "blocks")
    }
    moments["influence"] = torch.tensor([0.5, 0.1, 0.3, 0.1, 0.2])
    return Inputs(state, config, moments=Moments(moments))


def nonzero(state):
    return sum(int(torch.count_nonzero(tensor)) for tensor in state.values())


def test_wanda_by_hand():
    # Two outputs, three inputs with norms 1, 10 and 2. Scores: 4, 10, 2 and 3, 20, 10.
    weights = torch.tensor([[4.0, -1.0, 1.0], [3.0, 2.0, -5.0]])
    square = torch.tensor([1.0, 100.0, 4.0])
    for axis, orient in ((1, lambda t: t), (0, lambda t: t.T)):
        pruned = zero_by_wanda({"w": orient(weights)}, {"w": square}, axis, 2)["w"]
        assert orient(pruned).tolist() == [[4.0, -1.0, 0.0], [0.0, 2.0, -5.0]] and pruned.is_contiguous()
        pruned = zero_by_wanda({"w": orient(weights)}, {"w": square}, axis, 4)["w"]
        assert orient(pruned).tolist() == [[0.0, -1.0, 0.0], [0.0, 2.0, 0.0]]
    # By magnitude other weights would go.
    assert zero_smallest({"w": weights}, 2)["w"].tolist() == [[4.0, 0.0, 0.0], [3.0, 2.0, -5.0]]


def test_wanda_leaves_zeros_out_of_the_count_and_breaks_ties_by_position():
    weights = torch.tensor([[0.0, 1.0, -1.0, 1.0], [2.0, 0.0, 0.0, 2.0]])  # 3 and 2 non-zero
    square = torch.ones(4)
    for zeros, expected in (
        (1, [[0, 0, -1, 1], [2, 0, 0, 2]]),  # shares 0.6 and 0.4
        (3, [[0, 0, 0, 1], [0, 0, 0, 2]]),  # 1.8 and 1.2
        (4, [[0, 0, 0, 1], [0, 0, 0, 0]]),  # 2.4 and 1.6
        (5, [[0, 0, 0, 0], [0, 0, 0, 0]]),
        (0, weights.tolist()),
    ):
        assert zero_by_wanda({"w": weights}, {"w": square}, 1, zeros)["w"].tolist() == expected
    with pytest.raises(ValueError, match="cannot zero 6 of 5"):
        zero_by_wanda({"w": weights}, {"w": square}, 1, 6)


def test_wanda_takes_weights_of_silent_inputs_before_any_other():
    weights = torch.tensor([[9.0, 1.0, 0.0, 7.0]])
    pruned = zero_by_wanda({"w": weights}, {"w": torch.tensor([0.0, 1.0, 0.0, 0.0])}, 1, 2)["w"]
    assert pruned.tolist() == [[0.0, 1.0, 0.0, 0.0]]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.data())
def test_share_out_is_exact_and_feasible(counts, data):
    total = data.draw(st.integers(0, sum(counts)))
    shares = share_out(total, torch.tensor(counts))
    assert int(shares.sum()) == total and (shares <= torch.tensor(counts)).all() and (shares >= 0).all()
    if sum(counts):
        exact = torch.tensor(counts) * total / sum(counts)
        assert ((shares - exact).abs() < 1 + 1e-6).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(0, 1), st.data())
def test_wanda_is_exact_and_takes_the_smallest_of_each_output(seed, axis, data):
    generator = np.random.default_rng(seed)
    tensors = {name: torch.from_numpy(generator.integers(-3, 4, (4, 6))).float() for name in "ab"}
    squares = {name: torch.from_numpy(generator.integers(0, 3, (4, 6)[axis])).float() for name in "ab"}
    zeros = data.draw(st.integers(0, nonzero(tensors)))
    pruned = zero_by_wanda(tensors, squares, axis, zeros)
    assert nonzero(pruned) == nonzero(tensors) - zeros
    for name, before in tensors.items():
        removed = (before != 0) & (pruned[name] == 0)
        assert torch.equal(pruned[name][~removed], before[~removed])
        score = before.abs() * squares[name].sqrt().reshape((-1, 1) if axis == 0 else (1, -1))
        rows = [t if axis == 1 else t.T for t in (removed, score, pruned[name])]  # one for each output
        for gone, scores, after in zip(*rows, strict=True):
            if gone.any() and (after != 0).any():
                assert scores[gone].max() <= scores[after != 0].min()


def test_wanda_prunes_each_output_alike_and_the_model_exactly(base):
    blocks = scope_names(base.config, "blocks")
    in_scope = nonzero({name: base.state[name] for name in blocks})
    before = {name: tensor.clone() for name, tensor in base.state.items()}
    for zeros in (in_scope // 2, 1234, 0, in_scope):
        keep = nonzero(base.state) - zeros
        built = REGISTRY["prune"].build(base, {"method": "prune", "score": "wanda", "scope": "blocks", "keep": keep})
        assert nonzero(built.state) == keep and built.notes["zeros_added"] == zeros
        assert set(built.frozen_zeros) == set(blocks)
        assert {n for n in before if not torch.equal(before[n], built.state[n])} <= set(blocks)
        if zeros == in_scope // 2:  # 16 or 64 inputs: half of each output goes, exactly
            for name in blocks:
                kept = torch.count_nonzero(built.state[name], dim=0)
                assert (kept == before[name].shape[0] // 2).all(), name
    assert all(torch.equal(before[name], base.state[name]) for name in before)


@pytest.mark.parametrize("scope", ["embedding", "all"])
def test_wanda_has_no_score_for_the_embedding(base, scope):
    with pytest.raises(InputError, match="no input features") as error:
        REGISTRY["prune"].build(base, {"method": "prune", "score": "wanda", "scope": scope, "keep_share": 0.9})
    assert f"score: wanda, scope: {scope}" in str(error.value) and "scope: blocks" in str(error.value)


@pytest.mark.parametrize(("n", "kept"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (5, [0])])
def test_drop_by_runs_keeps_the_first_block_of_each_run(base, n, kept):
    built = REGISTRY["drop"].build(base, {"method": "drop", "n": n, "by": "runs"})
    assert built.notes == {"kept": kept} and built.config["n_layer"] == len(kept)
    for new, old in enumerate(kept):
        for name in base.state:
            if name.startswith(f"transformer.h.{old}."):
                assert torch.equal(built.state[name.replace(f".h.{old}.", f".h.{new}.")], base.state[name])


@pytest.mark.parametrize(("n", "kept"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 2]), (4, [0, 2]), (5, [0])])
def test_drop_by_influence_keeps_as_many_of_most_influence(base, n, kept):
    assert REGISTRY["drop"].build(base, {"method": "drop", "n": n, "by": "influence"}).notes == {"kept": kept}


def test_of_blocks_of_equal_influence_the_later_goes_first(base):
    inputs = Inputs(base.state, base.config, moments=Moments({"influence": torch.tensor([0.2, 0.1, 0.3, 0.1, 0.1])}))
    assert REGISTRY["drop"].build(inputs, {"method": "drop", "n": 2, "by": "influence"}).notes == {"kept": [0, 1, 2]}


def test_drop_beyond_the_blocks_is_refused(base):
    with pytest.raises(InputError, match="n is out of bounds"):
        REGISTRY["drop"].build(base, {"method": "drop", "n": 6, "by": "runs"})
