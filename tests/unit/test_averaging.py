from dataclasses import replace

import numpy as np
import pytest
import torch
from ffnfold.architecture import FAMILIES, ffn_names
from ffnfold.averaging import aligned_ffn, mean_ffn, regress, regression_ffn, represent_group
from ffnfold.grouping import Group
from ffnfold.methods import Inputs
from ffnfold.moments import Moments

GPT2 = FAMILIES["gpt2"]
LINEAR = replace(GPT2, hidden_axis_in=0, hidden_axis_out=1)  # weights (out, in), as nn.Linear keeps them
HIDDEN, NEURONS, LAYERS = 3, 5, 4


def second_moment(x):
    """Second moment of (x, 1), float64, of positions in rows."""
    x = torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    return x.T @ x / len(x)


@pytest.fixture
def world(generator):
    """State of four FFNs (GPT-2 layout), their inputs and activations, and random permutations."""
    state, inputs, activations = {}, [], []
    for layer in range(LAYERS):
        names = ffn_names(GPT2, layer)
        for part, shape in {
            "in_weight": (HIDDEN, NEURONS),
            "in_bias": (NEURONS,),
            "out_weight": (NEURONS, HIDDEN),
            "out_bias": (HIDDEN,),
        }.items():
            state[names[part]] = torch.from_numpy(generator.normal(size=shape)).float()
        x = torch.from_numpy(generator.normal(0.5, 1.0, (40, HIDDEN))).float()
        inputs.append(x)
        activations.append(torch.relu(x @ state[names["in_weight"]] + state[names["in_bias"]]))
    orders = np.tile(np.arange(NEURONS, dtype=np.int32), (LAYERS, LAYERS, 1))
    for a in range(LAYERS):
        for b in range(a + 1, LAYERS):
            orders[a, b] = generator.permutation(NEURONS)
            orders[b, a, orders[a, b]] = np.arange(NEURONS)
    moments = {f"ffn_in.{i}": second_moment(x).float() for i, x in enumerate(inputs)}
    moments.update({f"ffn_out.{i}": second_moment(h).float() for i, h in enumerate(activations)})
    return state, inputs, activations, orders, Moments(moments)


def as_linear(state):
    return {name: tensor.T.contiguous() if tensor.ndim == 2 else tensor for name, tensor in state.items()}


def as_equal(state, orders):
    """All FFNs the first one's, each in its own neuron order, which `orders` undoes."""
    equal = dict(state)
    for layer in range(1, LAYERS):
        first, undo = ffn_names(GPT2, 0), torch.from_numpy(np.argsort(orders[0, layer]))
        names = ffn_names(GPT2, layer)
        equal[names["in_weight"]] = state[first["in_weight"]][:, undo]
        equal[names["in_bias"]] = state[first["in_bias"]][undo]
        equal[names["out_weight"]] = state[first["out_weight"]][undo]
        equal[names["out_bias"]] = state[first["out_bias"]].clone()
    return equal


def test_aligned_ffn_puts_each_neuron_where_the_permutation_says(world):
    state, _, _, orders, _ = world
    names = ffn_names(GPT2, 2)
    ffn = aligned_ffn(state, GPT2, 2, 1, orders)
    for place in range(NEURONS):
        neuron = int(orders[1, 2, place])
        assert torch.equal(ffn["in_weight"][:, place], state[names["in_weight"]][:, neuron])
        assert ffn["in_bias"][place] == state[names["in_bias"]][neuron]
        assert torch.equal(ffn["out_weight"][place], state[names["out_weight"]][neuron])
    for layer, permutations in ((2, None), (1, orders)):
        ffn = aligned_ffn(state, GPT2, layer, 1, permutations)
        assert all(torch.equal(ffn[part], state[name]) for part, name in ffn_names(GPT2, layer).items())


def test_mean_by_hand():
    state = {}
    for layer, (scale, columns) in enumerate([(1.0, [0, 1]), (3.0, [1, 0])]):
        names = ffn_names(GPT2, layer)
        state[names["in_weight"]] = scale * torch.tensor([[1.0, 10.0]])[:, columns]
        state[names["in_bias"]] = scale * torch.tensor([2.0, 20.0])[columns]
        state[names["out_weight"]] = scale * torch.tensor([[4.0], [40.0]])[columns]
        state[names["out_bias"]] = torch.tensor([scale])
    orders = np.array([[[0, 1], [1, 0]], [[1, 0], [0, 1]]], dtype=np.int32)
    group = Group((0, 1), 0)
    aligned = mean_ffn(state, GPT2, group, orders)
    assert {part: tensor.flatten().tolist() for part, tensor in aligned.items()} == {
        "in_weight": [2.0, 20.0],
        "in_bias": [4.0, 40.0],
        "out_weight": [8.0, 80.0],
        "out_bias": [2.0],
    }
    assert mean_ffn(state, GPT2, group, None)["in_weight"].tolist() == [[(1 + 30) / 2, (10 + 3) / 2]]
    assert mean_ffn(state, GPT2, Group((0, 1), 1), orders)["in_weight"].tolist() == [[20.0, 2.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_average_changes_the_base(world, dtype):
    state, _, _, orders, moments = world
    state = {name: tensor.to(dtype) for name, tensor in state.items()}
    before = {name: tensor.clone() for name, tensor in state.items()}
    kept = {name: tensor.clone() for name, tensor in moments._source.items()}
    group = Group((0, 2, 3), 2)
    for ffn in (mean_ffn(state, GPT2, group, orders), regression_ffn(state, GPT2, group, orders, moments)):
        assert {tensor.dtype for tensor in ffn.values()} == {dtype}
        for tensor in ffn.values():
            tensor.fill_(7.0)
    assert all(torch.equal(state[name], before[name]) for name in before)
    assert all(torch.equal(moments._source[name], kept[name]) for name in kept)


@pytest.mark.parametrize("anchor", [0, 2])
def test_the_mean_of_equal_ffns_is_exact(world, anchor):
    state, _, _, orders, _ = world
    equal = as_equal(state, orders)
    orders = orders.copy()
    for layer in range(LAYERS):  # from the anchor's order by way of the first block's
        orders[anchor, layer] = orders[0, layer][np.argsort(orders[0, anchor])]
    for members in ((0, 1, 2), (0, 1, 2, 3)):
        ffn = mean_ffn(equal, GPT2, Group(members, anchor), orders)
        assert all(torch.equal(ffn[part], equal[name]) for part, name in ffn_names(GPT2, anchor).items())


def test_the_regression_of_equal_ffns_is_that_ffn(world):
    state, _, _, orders, moments = world
    ffn = regression_ffn(as_equal(state, orders), GPT2, Group((0, 1, 2, 3), 0), orders, moments)
    for part, name in ffn_names(GPT2, 0).items():
        torch.testing.assert_close(ffn[part], state[name], rtol=0, atol=1e-5)


def test_the_regression_at_alpha_one_is_least_squares_on_the_raw_activations(world):
    state, inputs, activations, orders, moments = world
    group = Group((1, 3), 1)
    ffn = regression_ffn(state, GPT2, group, orders, moments, alpha=1.0, ridge=1e-9)
    order = torch.from_numpy(orders[1, 3].astype(np.int64))
    for side, features, sources, places in (
        ("in", inputs, (slice(None), slice(None)), (slice(None), order)),
        ("out", activations, (slice(None), order), (slice(None), slice(None))),
    ):
        stacked, targets = [], []
        for layer, source, place in zip(group.members, sources, places, strict=True):
            names = ffn_names(GPT2, layer)
            x = features[layer].double()
            target = x @ state[names[f"{side}_weight"]].double() + state[names[f"{side}_bias"]].double()
            ones = torch.ones(len(x), 1, dtype=torch.float64)
            stacked.append(torch.cat([x[:, source if side == "out" else slice(None)], ones], dim=1))
            targets.append(target[:, place])
        expected = np.linalg.lstsq(torch.cat(stacked).numpy(), torch.cat(targets).numpy(), rcond=None)[0]
        np.testing.assert_allclose(ffn[f"{side}_weight"].numpy(), expected[:-1], atol=2e-4)
        np.testing.assert_allclose(ffn[f"{side}_bias"].numpy(), expected[-1], atol=2e-4)


def test_regress_by_hand():
    # One feature and the constant. At alpha 0 each input is a weighted mean by its own mean square.
    maps = [torch.tensor([[1.0], [0.0]]).double(), torch.tensor([[5.0], [4.0]]).double()]
    moments = [torch.tensor([[3.0, 1.5], [1.5, 1.0]]), torch.tensor([[1.0, 0.9], [0.9, 1.0]])]
    assert regress(maps, moments, alpha=0.0, ridge=0.0).flatten().tolist() == pytest.approx([2.0, 2.0])
    # At alpha 1/2: [[4, 1.2], [1.2, 2]] w = [3 * 1 + .75 * 0 + 5 + .45 * 4, .75 * 1 + .45 * 5 + 4] = [9.8, 7].
    expected = np.linalg.solve([[4, 1.2], [1.2, 2]], [9.8, 7.0])
    assert regress(maps, moments, alpha=0.5, ridge=0.0).flatten().tolist() == pytest.approx(expected.tolist())


def test_regress_is_the_mean_where_no_input_goes(generator):
    maps = [torch.from_numpy(generator.normal(size=(4, 2))) for _ in range(3)]
    moments = []
    for _ in maps:
        x = torch.from_numpy(generator.normal(size=(30, 3)))
        x[:, 1] = 0.0  # a feature that is never active
        moments.append(second_moment(x))
    for alpha in (0.9, 1.0):
        found = regress(maps, moments, alpha=alpha)
        torch.testing.assert_close(found[1], sum(maps)[1] / 3)
        assert not torch.allclose(found[0], sum(maps)[0] / 3, atol=1e-3)


def test_equal_moments_give_the_mean(generator):
    maps = [torch.from_numpy(generator.normal(size=(4, 2))) for _ in range(3)]
    moment = second_moment(torch.from_numpy(generator.normal(size=(30, 3))))
    torch.testing.assert_close(regress(maps, [moment] * 3), sum(maps) / 3)


def test_regression_does_not_depend_on_the_order_that_the_neurons_are_stored_in(world):
    # Shuffle one member's neurons, its moments and the permutation that undoes it: the same FFN comes out.
    state, _, _, orders, moments = world
    group = Group((0, 1), 0)
    expected = regression_ffn(state, GPT2, group, orders, moments)
    shuffle = np.array([3, 0, 4, 1, 2])
    order, names = torch.from_numpy(shuffle), ffn_names(GPT2, 1)
    moved = dict(state)
    moved[names["in_weight"]] = state[names["in_weight"]][:, order]
    moved[names["in_bias"]] = state[names["in_bias"]][order]
    moved[names["out_weight"]] = state[names["out_weight"]][order]
    extended = torch.cat([order, torch.tensor([NEURONS])])
    tensors = dict(moments._source)
    tensors["ffn_out.1"] = tensors["ffn_out.1"][extended][:, extended]
    orders = orders.copy()
    orders[0, 1] = np.argsort(shuffle)[orders[0, 1]]
    found = regression_ffn(moved, GPT2, group, orders, Moments(tensors))
    for part, tensor in expected.items():
        torch.testing.assert_close(found[part], tensor)


@pytest.mark.parametrize("average", ["mean", "regression"])
def test_linear_layers_give_the_transposes(world, average):
    state, _, _, orders, moments = world
    group = Group((0, 2, 3), 2)
    arguments = (moments,) if average == "regression" else ()
    function = regression_ffn if average == "regression" else mean_ffn
    expected = function(state, GPT2, group, orders, *arguments)
    found = function(as_linear(state), LINEAR, group, orders, *arguments)
    for part, tensor in expected.items():
        assert found[part].is_contiguous()
        torch.testing.assert_close(found[part], tensor.T if tensor.ndim == 2 else tensor)


def test_represent_group_follows_the_options(world):
    state, _, _, orders, moments = world
    inputs = Inputs(state, {"model_type": "gpt2"}, permutations=orders, moments=moments)
    group = Group((0, 1, 3), 1)

    def represent(average, align="activations", group=group, inputs=inputs):
        return represent_group(inputs, {"average": average, "align": align}, group)

    def same(a, b):
        return a.keys() == b.keys() and all(torch.equal(a[part], b[part]) for part in a)

    assert same(represent("mean"), mean_ffn(state, GPT2, group, orders))
    assert same(represent("mean", "weights"), mean_ffn(state, GPT2, group, orders))
    assert same(represent("mean", "none"), mean_ffn(state, GPT2, group, None))
    assert not same(represent("mean"), represent("mean", "none"))
    assert same(represent("regression"), regression_ffn(state, GPT2, group, orders, moments))
    assert same(represent("regression", "none"), regression_ffn(state, GPT2, group, None, moments))
    own = {part: state[name] for part, name in ffn_names(GPT2, 1).items()}
    bare = Inputs(state, {"model_type": "gpt2"})
    assert same(represent("anchor", inputs=bare), own)
    for average in ("mean", "regression", "anchor"):
        assert same(represent(average, group=Group((1,), 1), inputs=bare), own)
