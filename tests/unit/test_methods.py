import math

import numpy as np
import pytest
import torch
from ffnfold.architecture import FAMILIES, ffn_names
from ffnfold.averaging import mean_ffn
from ffnfold.errors import InputError
from ffnfold.grouping import Group
from ffnfold.methods import NEEDS, REGISTRY, Inputs, needs_of
from ffnfold.methods.distill import distillation_loss
from ffnfold.methods.prune import scope_names, zero_smallest
from ffnfold.settings import fill_defaults, load_schema
from ffnfold.training import fit, hold_zeros
from hypothesis import given, settings
from hypothesis import strategies as st

GPT2 = FAMILIES["gpt2"]
FFN = ("mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias")


@pytest.fixture(scope="module")
def base(make_gpt2, state_of):
    """State, configuration and random permutations of a model of 5 blocks."""
    state, config = state_of(make_gpt2(layers=5))
    generator = np.random.default_rng(1)
    orders = np.tile(np.arange(64, dtype=np.int32), (5, 5, 1))
    for a in range(5):
        for b in range(a + 1, 5):
            orders[a, b] = generator.permutation(64)
            orders[b, a, orders[a, b]] = np.arange(64)
    return Inputs(state, config, orders)


@pytest.fixture
def same_ffns(base):
    """The model with one FFN in every block, in another neuron order in each, and the permutations that undo it."""
    state = dict(base.state)
    for layer in range(1, 5):
        undo = torch.from_numpy(np.argsort(base.permutations[0, layer]))
        for part, name in ffn_names(GPT2, layer).items():
            tensor = base.state[ffn_names(GPT2, 0)[part]]
            state[name] = {
                "in_weight": lambda t, u: t[:, u],
                "in_bias": lambda t, u: t[u],
                "out_weight": lambda t, u: t[u],
                "out_bias": lambda t, u: t,
            }[part](tensor, undo).clone()
    return Inputs(state, base.config, base.permutations)


def filled(method, **options):
    """A variant's line with the schema's defaults."""
    schema = load_schema("study")
    return fill_defaults({"method": method, **options}, schema["$defs"][method], schema)


def build(method, inputs, **options):
    before = {name: tensor.clone() for name, tensor in inputs.state.items()}
    built = REGISTRY[method].build(inputs, filled(method, **options))
    assert all(torch.equal(before[name], inputs.state[name]) for name in before), "the base was changed"
    return built


def same_bytes(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("method", ["merge", "compress"])
def test_runs_of_one_are_the_identity(base, method):
    built = build(method, base, n=1)
    assert same_bytes(built.state, base.state) and built.config == base.config


def test_merging_an_ffn_with_itself_is_the_identity(base, same_ffns, model_of):
    # A run of blocks with the same FFN in other neuron orders: the anchor's bytes stay, the logits too.
    built = build("merge", same_ffns, n=5)
    for name in FFN:
        assert torch.equal(built.state[f"transformer.h.0.{name}"], base.state[f"transformer.h.0.{name}"])
    ids = torch.randint(0, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    expected = model_of(dict(same_ffns.state), base.config)(ids).logits
    torch.testing.assert_close(model_of(built.state, built.config)(ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_merging_equal_ffns_in_equal_order_gives_back_the_bytes(base):
    state = dict(base.state)
    for layer in range(1, 5):
        state.update({f"transformer.h.{layer}.{name}": state[f"transformer.h.0.{name}"].clone() for name in FFN})
    identity = np.tile(np.arange(64, dtype=np.int32), (5, 5, 1))
    for n in (2, 3, 5):
        assert same_bytes(build("merge", Inputs(state, base.config, identity), n=n).state, state)


def test_merge_writes_the_average_to_every_block_of_the_run(base):
    built = build("merge", base, n=3)
    assert built.notes == {"groups": [[0, 1, 2], [3, 4]], "anchors": [0, 3]}
    assert built.config["n_layer"] == 5
    for run in built.notes["groups"]:
        average = mean_ffn(base.state, GPT2, Group(tuple(run), run[0]), base.permutations)
        for layer in run:
            for part, name in ffn_names(GPT2, layer).items():
                assert torch.equal(built.state[name], average[part])
                assert not torch.equal(built.state[name], base.state[name])
    for name in base.state:
        if not name.endswith(FFN):
            assert torch.equal(built.state[name], base.state[name])


def test_merge_to_the_anchor_leaves_the_others_their_own_weights(base):
    whole, anchor = build("merge", base, n=3), build("merge", base, n=3, write="anchor")
    for layer in range(5):
        for name in ffn_names(GPT2, layer).values():
            source = whole if layer in (0, 3) else base
            assert torch.equal(anchor.state[name], source.state[name])


@pytest.mark.parametrize(("n", "anchors"), [(2, [0, 2, 4]), (3, [0, 3]), (4, [0, 4]), (5, [0])])
def test_compress_keeps_the_anchors_and_their_attention_and_norms(base, model_of, n, anchors):
    built = build("compress", base, n=n)
    assert built.config["n_layer"] == len(anchors) == math.ceil(5 / n)
    assert {name.split(".")[2] for name in built.state if ".h." in name} == set(map(str, range(len(anchors))))
    for new, old in enumerate(anchors):
        average = mean_ffn(base.state, GPT2, Group(tuple(built.notes["groups"][new]), old), base.permutations)
        for part, name in ffn_names(GPT2, new).items():
            assert torch.equal(built.state[name], average[part])
        for name in (
            name for name in base.state if name.startswith(f"transformer.h.{old}.") and not name.endswith(FFN)
        ):
            assert torch.equal(built.state[name.replace(f".h.{old}.", f".h.{new}.")], base.state[name])
    assert model_of(built.state, built.config)(torch.zeros(1, 4, dtype=torch.int64)).logits.isfinite().all()


@pytest.mark.parametrize("method", ["merge", "compress"])
def test_n_beyond_the_blocks_is_refused(base, method):
    with pytest.raises(InputError, match="n is out of bounds"):
        build(method, base, n=6)


def test_baseline_is_the_base(base):
    built = build("baseline", base)
    assert same_bytes(built.state, base.state) and built.config == base.config and not built.frozen_zeros


def test_checkpoint_with_another_vocabulary_is_refused(base):
    assert same_bytes(build("checkpoint", base, source="a/b", vocabulary_size=300).state, base.state)
    with pytest.raises(InputError, match="vocabulary") as error:
        build("checkpoint", base, source="a/b", vocabulary_size=301)
    assert "source: a/b" in str(error.value) and "300 tokens" in str(error.value) and "remedy" in str(error.value)


def test_zero_smallest_breaks_ties_by_position_and_skips_zeros():
    tensors = {"a": torch.tensor([[0.0, 1.0], [-1.0, 3.0]]), "b": torch.tensor([1.0, 0.0, -2.0, 1.0])}
    pruned = zero_smallest(tensors, 3)
    assert pruned["a"].tolist() == [[0.0, 0.0], [0.0, 3.0]]
    assert pruned["b"].tolist() == [0.0, 0.0, -2.0, 1.0]
    assert tensors["a"].tolist() == [[0.0, 1.0], [-1.0, 3.0]]
    assert zero_smallest(tensors, 0)["b"].tolist() == [1.0, 0.0, -2.0, 1.0]
    assert not any(t.any() for t in zero_smallest(tensors, 6).values())
    with pytest.raises(ValueError, match="cannot zero 7 of 6"):
        zero_smallest(tensors, 7)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.lists(st.integers(-3, 3), max_size=30), st.data())
def test_zero_smallest_is_exact_and_takes_the_smallest(first, second, data):
    tensors = {"a": torch.tensor(first, dtype=torch.float32), "b": torch.tensor(second, dtype=torch.float32)}
    both = torch.cat(list(tensors.values()))
    zeros = data.draw(st.integers(0, int(torch.count_nonzero(both))))
    after = torch.cat(list(zero_smallest(tensors, zeros).values()))
    removed = (both != 0) & (after == 0)
    assert int(removed.sum()) == zeros
    assert torch.equal(after[~removed], both[~removed])
    if removed.any() and after.any():
        assert both[removed].abs().max() <= after[after != 0].abs().min()


@pytest.mark.parametrize("scope", ["embedding", "blocks", "all"])
def test_prune_reaches_the_exact_count_inside_its_scope(base, scope):
    present = sum(int(torch.count_nonzero(t)) for t in base.state.values())
    built = build("prune", base, scope=scope, keep=present - 1234)
    changed = {name for name in base.state if not torch.equal(base.state[name], built.state[name])}
    assert changed <= set(built.frozen_zeros) == set(scope_names(base.config, scope))
    assert sum(int(torch.count_nonzero(t)) for t in built.state.values()) == present - 1234
    assert built.notes == {"zeros_added": 1234, "nonzero_parameters": present - 1234, "scope": scope}


def test_prune_by_share_counts_zeros_that_are_there(base):
    state = {**base.state, "transformer.wpe.weight": torch.zeros_like(base.state["transformer.wpe.weight"])}
    present = sum(int(torch.count_nonzero(t)) for t in state.values())
    built = build("prune", Inputs(state, base.config), scope="all", keep_share=0.75)
    assert sum(int(torch.count_nonzero(t)) for t in built.state.values()) == round(0.75 * present)


def test_scopes_hold_matrices_only(base):
    assert scope_names(base.config, "embedding") == ["transformer.wte.weight"]
    blocks = scope_names(base.config, "blocks")
    assert len(blocks) == 5 * 4 and all(base.state[name].ndim == 2 for name in blocks)
    assert set(scope_names(base.config, "all")) == {"transformer.wte.weight", *blocks}


def test_a_pruning_target_out_of_reach_says_what_is_in_reach(base):
    present = sum(int(torch.count_nonzero(t)) for t in base.state.values())
    for keep in (present + 1, present - 4801):
        with pytest.raises(InputError, match="cannot be reached") as error:
            build("prune", base, scope="embedding", keep=keep)
        message = str(error.value)
        assert f"keep: {keep}, scope: embedding" in message
        assert f"keep between {present - 4800:,} and {present:,}" in message and "remedy" in message


def test_distillation_loss_by_hand():
    # At temperature 2 the student says (1/4, 3/4) where the teacher says (1/2, 1/2), and agrees at the other position.
    student = torch.tensor([[[0.0, 2 * math.log(3)], [1.0, 1.0]]])
    teacher = torch.tensor([[[0.0, 0.0], [7.0, 7.0]]])
    hidden = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]]), torch.tensor([[[0.0, 4.0], [2.0, 2.0]]])
    options = {"temperature": 2.0, "weight_soft": 5.0, "weight_hidden": 3.0, "weight_lm": 2.0}
    divergence = (0.5 * math.log(2) + 0.5 * math.log(2 / 3)) / 2  # mean over two positions, nats
    expected = 5 * 4 * divergence + 3 * (1 - (0 + 1) / 2) + 2 * 1.5
    found = distillation_loss(student, teacher, *hidden, torch.tensor(1.5), options)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_distill_gives_the_trainer_copies_of_the_chosen_blocks(base):
    def trainer(state, config, options):
        assert config["n_layer"] == 2 and options["layers"] == [0, 3]
        assert torch.equal(state["transformer.h.1.ln_1.weight"], base.state["transformer.h.3.ln_1.weight"])
        for tensor in state.values():
            tensor.add_(1)
        return state

    built = build("distill", Inputs(base.state, base.config, trainer=trainer), layers=[0, 3])
    assert built.config["n_layer"] == 2
    torch.testing.assert_close(built.state["transformer.wte.weight"], base.state["transformer.wte.weight"] + 1)


def test_zeros_stay_zero_through_training_with_weight_decay(base, model_of, generator, budget):
    present = sum(int(torch.count_nonzero(t)) for t in base.state.values())
    built = build("prune", base, scope="all", keep=present - 9000)
    state = {name: tensor.clone() for name, tensor in built.state.items()}
    model = model_of(state, built.config)
    hold_zeros(model, built.frozen_zeros)
    ids = torch.from_numpy(generator.integers(0, 300, (8, 16)))
    fit(model, [{"input_ids": row, "labels": row} for row in ids], {**budget, "accumulation": 2}, generator, "cpu")
    trained = dict(model.named_parameters())
    for name in built.frozen_zeros:
        was_zero = built.state[name] == 0
        assert was_zero.any() and not trained[name][was_zero].any(), name
        assert (trained[name] != built.state[name])[~was_zero].float().mean() > 0.9, name
    assert sum(int(torch.count_nonzero(p)) for p in model.parameters()) == present - 9000


@pytest.mark.parametrize("n", [2, 3, 5])
def test_dropping_is_compressing_where_the_ffns_of_a_run_are_equal(base, n):
    state = dict(base.state)
    for layer in range(5):
        for part, name in ffn_names(GPT2, layer).items():
            state[name] = base.state[ffn_names(GPT2, n * (layer // n))[part]].clone()
    identity = np.tile(np.arange(64, dtype=np.int32), (5, 5, 1))
    inputs = Inputs(state, base.config, identity)
    dropped, compressed = build("drop", inputs, n=n), build("compress", inputs, n=n)
    assert same_bytes(dropped.state, compressed.state) and dropped.config == compressed.config
    different = build("compress", base, n=n)
    assert not same_bytes(build("drop", base, n=n).state, different.state)


def test_the_window_of_least_cost_is_merged_and_the_others_left_alone(base):
    costs = iter([3.0, 2.0, 2.5])
    asked = []

    def nats(state, config):
        asked.append({name for name in base.state if not torch.equal(base.state[name], state[name])})
        return next(costs)

    inputs = Inputs(base.state, base.config, base.permutations, validation_nats=nats)
    built = build("merge", inputs, n=3, groups="window")
    assert built.notes["groups"] == [[0], [1, 2, 3], [4]]
    assert built.notes["window_nats"] == {"0-2": 3.0, "1-3": 2.0, "2-4": 2.5}
    changed = {name for name in base.state if not torch.equal(base.state[name], built.state[name])}
    assert changed == {name for layer in (1, 2, 3) for name in ffn_names(GPT2, layer).values()} == asked[1]
    costs = iter([1.0, 2.0, 2.5])
    inputs = Inputs(base.state, base.config, base.permutations, validation_nats=lambda *_: next(costs))
    assert build("compress", inputs, n=3, groups="window").config["n_layer"] == 3


def test_compress_keeps_the_medoid_where_it_is_the_reference(base):
    similarity = np.eye(5) + np.array([[0, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [0] * 5, [0] * 5])
    inputs = Inputs(base.state, base.config, base.permutations, similarity=similarity)
    built = build("compress", inputs, n=3, reference="medoid")
    assert built.notes == {"groups": [[0, 1, 2], [3, 4]], "anchors": [1, 3]}
    assert torch.equal(built.state["transformer.h.0.ln_1.weight"], base.state["transformer.h.1.ln_1.weight"])


def test_the_local_fit_gets_the_averaged_ffns_and_its_own_are_built(base):
    def fitter(ffns, groups, budget):
        assert budget["steps"] == 7 and [group.members for group in groups] == [(0, 1, 2), (3, 4)]
        expected = mean_ffn(base.state, GPT2, groups[0], base.permutations)
        assert all(torch.equal(ffns[0][part], expected[part]) for part in expected)
        return [{part: torch.full_like(tensor, 9.0) for part, tensor in ffn.items()} for ffn in ffns]

    inputs = Inputs(base.state, base.config, base.permutations, fitter=fitter)
    built = build("merge", inputs, n=3, fit={"steps": 7})
    assert all((built.state[name] == 9).all() for layer in range(5) for name in ffn_names(GPT2, layer).values())


@pytest.mark.parametrize(
    ("method", "options", "needs"),
    [
        ("merge", {}, {"alignment"}),
        ("share", {"align": "weights"}, {"weight_alignment"}),
        ("share", {"align": "none"}, set()),
        ("share", {"average": "anchor"}, set()),
        ("share", {"average": "anchor", "rank": 2}, {"alignment"}),
        ("compress", {"average": "anchor", "groups": "similarity"}, {"alignment"}),
        ("compress", {"average": "regression", "reference": "medoid"}, {"alignment", "moments"}),
        ("merge", {"groups": "window", "fit": {"steps": 1}}, {"alignment", "validation", "data"}),
        ("drop", {}, set()),
        ("drop", {"by": "influence"}, {"moments"}),
        ("bypass", {}, set()),
        ("prune", {"keep": 1}, set()),
        ("prune", {"keep": 1, "scope": "blocks", "score": "wanda"}, {"moments"}),
        ("distill", {"layers": [0]}, {"data"}),
    ],
)
def test_what_a_build_needs_follows_from_its_options(method, options, needs):
    line = {"n": 2, **options} if method in ("merge", "share", "compress", "drop", "bypass") else options
    assert needs_of(filled(method, **line)) == needs <= NEEDS


def test_every_method_of_the_registry_has_a_module():
    for name, method in REGISTRY.items():
        assert method.title and method.module == name and callable(method.needs)
