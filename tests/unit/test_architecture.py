import pytest
import torch
import transformers
from ffnfold.architecture import (
    FAMILIES,
    SHARED_SUFFIX,
    consecutive_runs,
    family_of,
    ffn_names,
    flops_per_token,
    keep_blocks,
    layer_count,
    positions_of,
    require_positions,
)
from ffnfold.errors import InputError
from ffnfold.methods import REGISTRY, Inputs
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode


def test_runs_of_eight_are_a_long_and_a_short_one():
    assert consecutive_runs(12, 8) == [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11]]
    assert consecutive_runs(12, 10) == [list(range(10)), [10, 11]]
    assert consecutive_runs(4, 2) == [[0, 1], [2, 3]]
    assert consecutive_runs(3, 1) == [[0], [1], [2]]
    assert consecutive_runs(3, 3) == [[0, 1, 2]]


@given(st.integers(1, 96), st.data())
def test_runs_hold_every_block_once_and_only_the_last_is_short(layers, data):
    n = data.draw(st.integers(1, layers))
    runs = consecutive_runs(layers, n)
    assert [layer for run in runs for layer in run] == list(range(layers))
    assert all(len(run) == n for run in runs[:-1]) and 1 <= len(runs[-1]) <= n
    assert len(runs) == -(-layers // n)


@pytest.mark.parametrize("n", [0, -1, 13])
def test_n_outside_the_blocks_is_refused(n):
    with pytest.raises(InputError, match="n is out of bounds") as error:
        consecutive_runs(12, n)
    assert str(n) in str(error.value) and "1 to 12" in str(error.value)


def test_family_names_are_those_of_the_model(make_gpt2, state_of):
    state, config = state_of(make_gpt2())
    family = family_of(config)
    assert layer_count(config) == 4
    shapes = {part: tuple(state[name].shape) for part, name in ffn_names(family, 2).items()}
    assert shapes == {"in_weight": (16, 64), "in_bias": (64,), "out_weight": (64, 16), "out_bias": (16,)}
    assert family.embedding in state


def test_unknown_family_is_refused():
    with pytest.raises(InputError, match="model_type") as error:
        family_of({"model_type": "llama"})
    assert "'llama'" in str(error.value) and "gpt2 or gpt_neox" in str(error.value)


def test_keep_blocks_renumbers_in_the_given_order(make_gpt2, state_of, model_of):
    model = make_gpt2()
    state, config = state_of(model)
    new_state, new_config = keep_blocks(state, config, [3, 1])
    assert new_config["n_layer"] == 2 and config["n_layer"] == 4
    assert {name for name in new_state if ".h." not in name} == {name for name in state if ".h." not in name}
    for new, old in ((0, 3), (1, 1)):
        for name in (name for name in state if name.startswith(f"transformer.h.{old}.")):
            assert new_state[name.replace(f".h.{old}.", f".h.{new}.")] is state[name]
    assert len([name for name in new_state if ".h." in name]) == len([name for name in state if ".h." in name]) / 2
    ids = torch.arange(10)[None]
    del model.transformer.h[2], model.transformer.h[0]
    model.transformer.h = torch.nn.ModuleList([model.transformer.h[1], model.transformer.h[0]])
    assert torch.equal(model_of(new_state, new_config)(ids, use_cache=False).logits, model(ids, use_cache=False).logits)


def test_keep_blocks_does_not_take_one_block_for_another_with_a_longer_number(make_gpt2, state_of):
    state, config = state_of(make_gpt2(layers=12))
    new_state, _ = keep_blocks(state, config, [1])
    assert torch.equal(new_state["transformer.h.0.mlp.c_fc.weight"], state["transformer.h.1.mlp.c_fc.weight"])
    assert not [name for name in new_state if ".h." in name and ".h.0." not in name]


def test_keep_blocks_refuses_a_block_outside_the_model(make_gpt2, state_of):
    with pytest.raises(InputError, match="outside the model") as error:
        keep_blocks(*state_of(make_gpt2()), [0, 4])
    assert "[4]" in str(error.value) and "0 to 3" in str(error.value)


@pytest.mark.parametrize("length", [1, 7, 32])
def test_flops_are_those_of_torchs_counter_at_full_context(make_gpt2, state_of, length):
    model = make_gpt2(attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, length, dtype=torch.int64), use_cache=False)
    assert counter.get_total_flops() == length * flops_per_token(*state_of(model), length)


def test_flops_by_hand(make_gpt2, state_of):
    # A block's matrices: 16x48 + 16x16 + 16x64 + 64x16 = 3,072; head 300x16 = 4,800; attention 4 x 4 x 16 x context.
    state, config = state_of(make_gpt2())
    assert flops_per_token(state, config, 10) == 2 * (4 * 3072 + 4800) + 4 * 4 * 16 * 10


def test_a_sequence_longer_than_the_positions_is_refused():
    config = {"model_type": "gpt2", "n_positions": 64}
    require_positions(config, 64, "some.key")
    require_positions({"model_type": "gpt2"}, 10**9, "some.key")
    with pytest.raises(InputError, match=r"some\.key") as error:
        require_positions(config, 65, "some.key")
    assert "65 tokens" in str(error.value) and "at most 64" in str(error.value)


def test_positions_are_read_under_the_familys_own_key():
    assert positions_of({"model_type": "gpt2", "n_positions": 64, "max_position_embeddings": 3}) == 64
    assert positions_of({"model_type": "gpt_neox", "n_positions": 3, "max_position_embeddings": 64}) == 64
    assert positions_of({"model_type": "gpt2_shared_ffn", "n_positions": 64}) == 64
    assert positions_of({"model_type": "gpt_neox"}) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_type_with_tied_ffns_is_of_the_stock_family(family):
    assert family_of({"model_type": family + SHARED_SUFFIX}) is FAMILIES[family]
    for wrong in (SHARED_SUFFIX, family + SHARED_SUFFIX * 2, None, 3):
        with pytest.raises(InputError, match=r"GPT-2 or GPT-NeoX \(Pythia\)"):
            family_of({"model_type": wrong})


# --------------------------------------------------------------------------------------------------- full sizes


AVERAGING = {"groups": "runs", "reference": "first", "align": "none", "average": "mean", "fit": {"steps": 0}}


def blank_state(config):
    """Names and shapes of a full-size model, without memory."""
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    return {name: t for name, t in model.state_dict().items() if name not in model.all_tied_weights_keys}


def count(state):
    return sum(tensor.numel() for tensor in state.values())


def build(method, inputs, options):
    return REGISTRY[method].build(inputs, {"method": method, "write": "all", **options})


def test_parameters_of_pythia_160m():
    shape = {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
    config = transformers.GPTNeoXConfig(**shape, vocab_size=50304)
    state = blank_state(config)
    assert count(state) == 162_322_944
    assert 162_322_944 - 2 * 50304 * 768 == 85_056_000  # Source: Biderman et al. 2023, table 1, without embeddings
    inputs = Inputs(state, config.to_dict())
    options = {**AVERAGING, "n": 2}
    assert count(build("merge", inputs, options).state) == 162_322_944
    # Six blocks fewer, of 12 x 768^2 weights and 13 x 768 biases and norms each.
    block = 12 * 768**2 + 13 * 768
    assert count(build("compress", inputs, options).state) == 162_322_944 - 6 * block == 119_795_712
    # 2 x the blocks' matrices and the head, 4 x 12 x 768 x 2,048 for attention.
    expected = 2 * (12 * 12 * 768**2 + 50304 * 768) + 4 * 12 * 768 * 2048
    assert flops_per_token(state, config.to_dict(), 2048) == expected


SIZES = {
    "gpt2": (12, 768, 12, 124_439_808),
    "gpt2-medium": (24, 1024, 16, 354_823_168),
    "gpt2-large": (36, 1280, 20, 774_030_080),
    "gpt2-xl": (48, 1600, 25, 1_557_611_200),
}


@pytest.mark.parametrize("name", SIZES)
def test_every_gpt2_can_be_cut_into_runs_up_to_its_depth(name):
    layers, hidden, heads, expected = SIZES[name]
    config = transformers.GPT2Config(n_layer=layers, n_embd=hidden, n_head=heads)
    state = blank_state(config)
    assert count(state) == expected
    block = 12 * hidden**2 + 13 * hidden
    inputs = Inputs(state, config.to_dict())
    for n in range(1, layers + 1):
        runs = consecutive_runs(layer_count(inputs.config), n)
        kept, changed = keep_blocks(state, inputs.config, [run[0] for run in runs])
        assert changed["n_layer"] == len(runs) == -(-layers // n)
        assert count(kept) == expected - (layers - len(runs)) * block
    options = {**AVERAGING, "n": layers}
    assert count(build("merge", inputs, options).state) == expected
    assert count(build("compress", inputs, options).state) == expected - (layers - 1) * block
    with pytest.raises(InputError, match=f"1 to {layers}"):
        build("merge", inputs, {**options, "n": layers + 1})
