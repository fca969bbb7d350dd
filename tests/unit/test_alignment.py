import gc
import weakref
from itertools import permutations

import numpy as np
import pytest
import torch
from ffnfold.alignment import (
    StreamingCorrelation,
    align_by_weights,
    align_pairs,
    collect_pre_activations,
    match_neurons,
    permute_ffn,
    weight_products,
)
from ffnfold.architecture import FAMILIES, ffn_names
from ffnfold.averaging import mean_ffn
from ffnfold.calibration import (
    PRODUCT_BYTES,
    align_activations,
    correlate_layers,
    load_alignment,
    save_alignment,
)
from ffnfold.calibration_text import calibration_batches
from ffnfold.errors import InputError
from ffnfold.grouping import Group
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy.optimize import linear_sum_assignment

GPT2 = FAMILIES["gpt2"]


def stream(activations, cuts):
    statistics = StreamingCorrelation(*activations.shape[::2])
    for batch in np.split(activations, cuts, axis=1):
        statistics.add(torch.from_numpy(batch))
    return statistics


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_streaming_correlation_is_numpys_on_all_positions(generator, offset):
    values = generator.normal(offset, 1.0, (3, 200, 5)).astype(np.float32)
    values[1] += 0.7 * values[0][:, ::-1]
    statistics = stream(values, [1, 17, 120])
    assert statistics.count == 200
    for a, b in permutations(range(3), 2):
        expected = np.corrcoef(values[a].T, values[b].T)[:5, 5:]
        np.testing.assert_allclose(statistics.correlation(a, b), expected, atol=2e-5)


def test_a_constant_neuron_correlates_zero(generator):
    values = generator.normal(size=(2, 50, 4)).astype(np.float32)
    values[0, :, 2] = 3.0
    values[1, :, 1] = 0.0
    correlation = stream(values, [10]).correlation(0, 1)
    assert np.isfinite(correlation).all()
    assert (correlation[2] == 0).all() and (correlation[:, 1] == 0).all()
    assert (correlation[[0, 1, 3]][:, [0, 2, 3]] != 0).all()


def test_correlation_errors(generator):
    statistics = StreamingCorrelation(2, 4)
    with pytest.raises(ValueError, match=r"\(2, positions, 4\)"):
        statistics.add(torch.zeros(2, 9, 5))
    statistics.add(torch.zeros(2, 1, 4))
    with pytest.raises(ValueError, match="at least 2 positions, got 1"):
        statistics.correlation(0, 1)
    statistics.add(torch.zeros(2, 1, 4))
    with pytest.raises(ValueError, match="layer 1 with layer 1 is not kept"):
        statistics.correlation(1, 1)


def test_only_the_pairs_asked_for_are_kept(generator):
    values = torch.from_numpy(generator.normal(size=(4, 50, 6)).astype(np.float32))
    some, every = StreamingCorrelation(4, 6, [(0, 3), (1, 2)]), StreamingCorrelation(4, 6)
    some.add(values)
    every.add(values)
    for pair in ((0, 3), (3, 0), (1, 2)):
        assert (some.correlation(*pair) == every.correlation(*pair)).all()
    with pytest.raises(ValueError, match="layer 0 with layer 1 is not kept"):
        some.correlation(1, 0)
    (found, rows), (expected, _) = align_pairs(some), align_pairs(every)
    assert [(row["layer_a"], row["layer_b"]) for row in rows] == [(0, 3), (1, 2)]
    assert (found[0, 3] == expected[0, 3]).all() and (found[2, 1] == expected[2, 1]).all()
    assert (found[0, 1] == np.arange(6)).all() and (expected[0, 1] != np.arange(6)).any()


@pytest.mark.parametrize("neurons", [4, 5])
@pytest.mark.parametrize("seed", range(5))
def test_matching_is_the_best_of_all_permutations(neurons, seed):
    correlation = np.random.default_rng(seed).uniform(-1, 1, (neurons, neurons))
    best = max(permutations(range(neurons)), key=lambda p: correlation[range(neurons), p].sum())
    assert match_neurons(correlation).tolist() == list(best)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 80), st.sampled_from(["noise", "common", "low rank", "zeros", "outlier"]))
def test_matching_is_scipys_optimum(seed, neurons, kind):
    """What is done to shorten the search changes nothing of what it finds."""
    generator = np.random.default_rng(seed)
    matrix = generator.normal(0, 0.05, (neurons, neurons))
    if kind == "common":
        matrix += np.outer(generator.uniform(0, 1, neurons), generator.uniform(0, 1, neurons))
    elif kind == "low rank":
        matrix += generator.normal(size=(neurons, 2)) @ generator.normal(size=(2, neurons))
    elif kind == "zeros":
        matrix[: neurons // 2] = 0
        matrix[:, neurons // 3 :] = 0
    elif kind == "outlier":
        matrix[0] *= 1e6
        matrix[:, -1] += 1e5
    kept = matrix.copy()
    order = match_neurons(matrix)
    assert (matrix == kept).all()
    assert sorted(order) == list(range(neurons))
    rows, columns = linear_sum_assignment(matrix, maximize=True)
    best = matrix[rows, columns].sum()
    assert matrix[range(neurons), order].sum() == pytest.approx(best, rel=1e-12, abs=1e-9)


def test_equal_likeness_leaves_the_order():
    assert match_neurons(np.full((5, 5), 0.3)).tolist() == list(range(5))


def ffn_of(state, layer):
    return {part: state[name] for part, name in ffn_names(GPT2, layer).items()}


def test_permuting_an_ffn_leaves_the_logits_unchanged(make_gpt2, state_of, model_of, generator):
    model = make_gpt2()
    state, config = state_of(model)
    ids = torch.from_numpy(generator.integers(0, 300, (2, 20)))
    order = torch.from_numpy(generator.permutation(64))
    changed = permute_ffn(ffn_of(state, 1), order, GPT2)
    assert not torch.equal(changed["in_weight"], state["transformer.h.1.mlp.c_fc.weight"])
    assert torch.equal(changed["in_bias"], state["transformer.h.1.mlp.c_fc.bias"][order])
    state.update({name: changed[part] for part, name in ffn_names(GPT2, 1).items()})
    torch.testing.assert_close(model_of(state, config)(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)


def test_a_permuted_copy_is_found_and_averaged_back(make_gpt2, state_of, generator):
    state, _ = state_of(make_gpt2())
    original = ffn_of(state, 0)
    copies = {}
    for layer in (1, 2):
        shuffled = permute_ffn(original, torch.from_numpy(generator.permutation(64)), GPT2)
        copies.update({name: shuffled[part] for part, name in ffn_names(GPT2, layer).items()})
    state = {**state, **copies}
    inputs = torch.randn(500, 16)
    activations = [inputs @ ffn_of(state, i)["in_weight"] + ffn_of(state, i)["in_bias"] for i in range(3)]
    statistics = StreamingCorrelation(3, 64)
    statistics.add(torch.stack(activations))
    orders, rows = align_pairs(statistics)
    for part, tensor in mean_ffn(state, GPT2, Group((0, 1, 2), 0), orders).items():
        assert torch.equal(tensor, original[part]), part
    assert [(row["layer_a"], row["layer_b"], row["positions"]) for row in rows] == [
        (0, 1, 500),
        (0, 2, 500),
        (1, 2, 500),
    ]
    assert all(row["mean_correlation_matched"] > 0.9999 for row in rows)
    assert all(row["mean_correlation_unmatched"] < 0.5 for row in rows)


def test_the_permutation_back_is_the_inverse(generator):
    values = generator.normal(size=(3, 40, 6)).astype(np.float32)
    orders, _ = align_pairs(stream(values, []))
    identity = np.arange(6)
    assert orders.dtype == np.int32 and orders.shape == (3, 3, 6)
    for a in range(3):
        assert (orders[a, a] == identity).all()
        for b in range(3):
            assert (orders[a, b][orders[b, a]] == identity).all()


def test_weight_products_by_hand():
    state = {
        "transformer.h.0.mlp.c_fc.weight": torch.tensor([[1.0, 2.0, 0.0]]),  # hidden size 1, 3 neurons
        "transformer.h.0.mlp.c_fc.bias": torch.tensor([0.0, 1.0, 3.0]),
        "transformer.h.0.mlp.c_proj.weight": torch.tensor([[1.0], [0.0], [0.0]]),
        "transformer.h.0.mlp.c_proj.bias": torch.zeros(1),
        "transformer.h.1.mlp.c_fc.weight": torch.tensor([[4.0, -1.0, 0.0]]),
        "transformer.h.1.mlp.c_fc.bias": torch.tensor([3.0, 0.0, 1.0]),
        "transformer.h.1.mlp.c_proj.weight": torch.tensor([[0.0], [2.0], [0.0]]),
        "transformer.h.1.mlp.c_proj.bias": torch.zeros(1),
    }
    # neurons of block 0: (1, 0, 1), (2, 1, 0), (0, 3, 0); of block 1: (4, 3, 0), (-1, 0, 2), (0, 1, 0)
    expected = [[4, 1, 0], [11, -2, 1], [9, 0, 3]]
    products = weight_products(state, GPT2, 0, 1)
    assert products.dtype == np.float32 and products.tolist() == expected
    orders, (row,) = align_by_weights(state, GPT2, 2)
    assert orders[0, 1].tolist() == [1, 0, 2] and orders[1, 0].tolist() == [1, 0, 2]  # 1 + 11 + 3 is the most
    cosines = np.array(expected) / np.outer(np.sqrt([2, 5, 9]), np.sqrt([25, 5, 1]))
    assert list(row) == ["layer_a", "layer_b", "mean_cosine_unmatched", "mean_cosine_matched"]
    assert row["mean_cosine_unmatched"] == pytest.approx(np.diagonal(cosines).mean())
    assert row["mean_cosine_matched"] == pytest.approx((cosines[0, 1] + cosines[1, 0] + cosines[2, 2]) / 3)


def test_a_permuted_copy_is_found_by_weights(make_gpt2, state_of, generator):
    state, _ = state_of(make_gpt2())
    shuffle = generator.permutation(64)
    copy = permute_ffn(ffn_of(state, 0), torch.from_numpy(shuffle), GPT2)
    state.update({name: copy[part] for part, name in ffn_names(GPT2, 3).items()})
    orders, rows = align_by_weights(state, GPT2, 4, threads=2)
    assert (orders[3, 0] == shuffle).all() and (shuffle[orders[0, 3]] == np.arange(64)).all()
    matched = {(row["layer_a"], row["layer_b"]): row["mean_cosine_matched"] for row in rows}
    assert list(matched) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert matched[0, 3] == pytest.approx(1.0, abs=1e-5)
    assert max(value for pair, value in matched.items() if pair != (0, 3)) < 0.9
    assert all(row["mean_cosine_matched"] > row["mean_cosine_unmatched"] for row in rows)
    for part, tensor in mean_ffn(state, GPT2, Group((0, 3), 0), orders).items():
        assert torch.equal(tensor, ffn_of(state, 0)[part]), part


def test_alignment_by_weights_leaves_the_function_unchanged(make_gpt2, state_of, model_of, generator):
    model = make_gpt2()
    state, config = state_of(model)
    ids = torch.from_numpy(generator.integers(0, 300, (2, 20)))
    orders, _ = align_by_weights(state, GPT2, 4)
    assert (orders[0, 2] != np.arange(64)).any()
    changed = permute_ffn(ffn_of(state, 2), torch.from_numpy(orders[0, 2].astype(np.int64)), GPT2)
    aligned = {**state, **{name: changed[part] for part, name in ffn_names(GPT2, 2).items()}}
    torch.testing.assert_close(model_of(aligned, config)(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)
    again, _ = align_by_weights(aligned, GPT2, 4)
    assert (again[0, 2] == np.arange(64)).all()


def test_a_neuron_without_weights_has_cosine_zero(make_gpt2, state_of):
    state, _ = state_of(make_gpt2())
    for layer in (0, 1):
        for tensor in ffn_of(state, layer).values():
            tensor.zero_()
    _, rows = align_by_weights(state, GPT2, 2)
    assert rows[0]["mean_cosine_matched"] == rows[0]["mean_cosine_unmatched"] == 0.0


def test_threads_change_nothing(generator):
    statistics = stream(generator.normal(size=(4, 60, 20)).astype(np.float32), [])
    (one, rows), (three, same) = align_pairs(statistics), align_pairs(statistics, threads=3)
    assert (one == three).all() and rows == same


@pytest.mark.parametrize(("pairs_at_a_time", "passes"), [(0, 6), (1, 6), (4, 2), (5, 2), (6, 1), (99, 1)])
@pytest.mark.parametrize("padded", [False, True])
def test_chunks_of_pairs_change_nothing_but_the_memory(
    make_gpt2, tokenizer, texts, monkeypatch, pairs_at_a_time, passes, padded
):
    """Their sums are gone before the next chunk's are made, and the text is drawn once."""
    made, alive_before = weakref.WeakSet(), []

    class Watched(StreamingCorrelation):
        def __init__(self, *arguments):
            alive_before.append(len(made))
            super().__init__(*arguments)
            made.add(self)

    model = make_gpt2()
    settings = {"tokens": 2500, "sequence_length": 32, "count_padding": padded, "max_items": None}
    arguments = (tokenizer, texts, "\n", settings)
    batches = calibration_batches(model, *arguments, np.random.default_rng(3), "cpu", 1)
    expected, rows = align_pairs(correlate_layers(model, batches))
    monkeypatch.setattr("ffnfold.calibration.StreamingCorrelation", Watched)
    gc.disable()  # nothing may have to wait for the collector
    try:
        bound = pairs_at_a_time * 4 * 64**2
        found, same = align_activations(model, *arguments, np.random.default_rng(3), "cpu", 1, product_bytes=bound)
    finally:
        gc.enable()
    assert found.dtype == expected.dtype == np.int32 and (found == expected).all()
    assert same == rows and len(rows) == 6
    assert alive_before == [0] * passes


def test_all_pairs_of_the_smallest_gpt2_fit_one_pass():
    assert 66 * 4 * 3072**2 <= PRODUCT_BYTES < 3 * 2**30


def test_a_model_of_one_block_is_aligned_with_nothing(make_gpt2, tokenizer, texts, generator):
    settings = {"tokens": 60, "sequence_length": 32, "count_padding": False, "max_items": None}
    orders, rows = align_activations(make_gpt2(layers=1), tokenizer, texts, "\n", settings, generator, "cpu", 1)
    assert orders.tolist() == [[list(range(64))]] and rows == []


@pytest.mark.parametrize("kind", ["correlation", "cosine"])
def test_an_alignment_survives_its_file(tmp_path, make_gpt2, state_of, generator, kind):
    if kind == "cosine":
        orders, rows = align_by_weights(state_of(make_gpt2())[0], GPT2, 4)
    else:
        orders, rows = align_pairs(stream(generator.normal(size=(4, 40, 64)).astype(np.float32), []))
    path, csv = tmp_path / "alignment.safetensors", tmp_path / "similarity.csv"
    save_alignment(orders, rows, str(path), str(csv))
    permutations, similarity = found = load_alignment(path)
    assert found.permutations is permutations and permutations.dtype == np.int32
    assert (permutations == orders).all()
    assert similarity.dtype == np.float64 and similarity.shape == (4, 4)
    assert (similarity == similarity.T).all() and (np.diagonal(similarity) == 1).all()
    assert [similarity[a, b] for a in range(4) for b in range(a + 1, 4)] == [
        row[f"mean_{kind}_matched"] for row in rows
    ]
    header = csv.read_text().splitlines()[0].split(",")
    positions = ["positions"] if kind == "correlation" else []
    assert header == ["layer_a", "layer_b", f"mean_{kind}_unmatched", f"mean_{kind}_matched", *positions]
    before = path.read_bytes()
    save_alignment(orders, rows, str(path), str(csv))
    assert path.read_bytes() == before


def test_an_alignment_of_one_block(tmp_path, make_gpt2, state_of):
    orders, rows = align_by_weights(state_of(make_gpt2())[0], GPT2, 1)
    save_alignment(orders, rows, str(tmp_path / "a.safetensors"), str(tmp_path / "a.csv"))
    assert rows == [] and load_alignment(tmp_path / "a.safetensors").similarity.tolist() == [[1.0]]


def test_an_alignment_file_without_similarity_is_refused(tmp_path):
    path = tmp_path / "permutations.safetensors"
    save_file({"permutations": torch.zeros(1, 1, 4, dtype=torch.int32)}, path)
    with pytest.raises(InputError, match="the alignment cannot be read"):
        load_alignment(path)


def test_average_by_hand(make_gpt2, state_of):
    state, _ = state_of(make_gpt2())
    orders = np.tile(np.arange(64), (4, 4, 1))
    orders[1, 3] = orders[1, 3][::-1]
    average = mean_ffn(state, GPT2, Group((1, 3), 1), orders)
    first, second = ffn_of(state, 1), ffn_of(state, 3)
    torch.testing.assert_close(average["in_weight"], (first["in_weight"] + second["in_weight"].flip(1)) / 2)
    torch.testing.assert_close(average["in_bias"], (first["in_bias"] + second["in_bias"].flip(0)) / 2)
    torch.testing.assert_close(average["out_weight"], (first["out_weight"] + second["out_weight"].flip(0)) / 2)
    torch.testing.assert_close(average["out_bias"], (first["out_bias"] + second["out_bias"]) / 2)
    assert average["in_weight"].dtype == torch.float32


def test_pre_activations_leave_padding_out(make_gpt2):
    model = make_gpt2()
    ids = torch.randint(1, 300, (2, 10))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    (found,) = collect_pre_activations(model, GPT2, 4, [{"input_ids": ids, "attention_mask": mask}])
    assert found.shape == (4, 16, 64) and found.dtype == torch.float32
    alone = [ids[:1], ids[1:, :6]]
    batches = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in alone]
    expected = torch.cat(list(collect_pre_activations(model, GPT2, 4, batches)), dim=1)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not any(module._forward_hooks for module in model.modules())


def test_pre_activations_are_the_input_of_the_activation_function(make_gpt2):
    model = make_gpt2()
    seen = []
    handle = model.transformer.h[2].mlp.act.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    ids = torch.randint(0, 300, (1, 8))
    (found,) = collect_pre_activations(model, GPT2, 4, [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}])
    handle.remove()
    assert torch.equal(found[2], seen[0][0])
