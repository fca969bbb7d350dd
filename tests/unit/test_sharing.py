"""Tied FFNs: stored once, tied whatever becomes of the model, and expanded to the same function."""

import copy
import json

import numpy as np
import pytest
import torch
import transformers
from ffnfold.architecture import FAMILIES, family_of, ffn_holders, ffn_names, flops_per_token
from ffnfold.checkpoints import load_model, load_state, save_checkpoint, save_model
from ffnfold.errors import InputError
from ffnfold.expand import expand_checkpoint, main
from ffnfold.methods import REGISTRY, Inputs
from ffnfold.methods.share import low_rank_deltas
from ffnfold.sharing import DELTAS, KEYS, delta_name, expand
from ffnfold.training import fit
from safetensors.torch import load_file

LAYERS, HIDDEN, NEURONS = 5, 16, 64
FFN_PARAMETERS = 2 * HIDDEN * NEURONS + NEURONS + HIDDEN
DEFAULTS = {"groups": "runs", "reference": "first", "align": "activations", "average": "mean", "fit": {"steps": 0}}


@pytest.fixture(scope="module", params=["gpt2", "gpt_neox"])
def base(request, make_gpt2, make_neox, state_of):
    """State, configuration and random permutations of a model of 5 blocks, for each family."""
    if request.param == "gpt2":
        state, config = state_of(make_gpt2(layers=LAYERS))
    else:  # its head is not tied to the embedding
        model = make_neox()
        state, config = {name: t.detach().clone() for name, t in model.state_dict().items()}, model.config.to_dict()
    generator = np.random.default_rng(1)
    orders = np.tile(np.arange(NEURONS, dtype=np.int32), (LAYERS, LAYERS, 1))
    for a in range(LAYERS):
        for b in range(a + 1, LAYERS):
            orders[a, b] = generator.permutation(NEURONS)
            orders[b, a, orders[a, b]] = np.arange(NEURONS)
    return Inputs(state, config, orders)


def build(method, inputs, **options):
    extra = {"share": {"rank": 0, "train": "all"}, "merge": {"write": "all"}}.get(method, {})
    return REGISTRY[method].build(inputs, {"method": method, **DEFAULTS, **extra, **options})


def written(folder, built):
    save_checkpoint(folder, built.state, built.config, None)
    return folder


def blocks_of(model):
    return model.get_submodule(family_of({"model_type": model.config.model_type}).blocks.split(".{")[0])


def assert_tied(model, groups=((0, 1, 2), (3, 4))):
    """One module a group, seen once among the parameters, used by every block of it."""
    blocks = blocks_of(model)
    for group in groups:
        assert all(blocks[layer].mlp is blocks[group[0]].mlp for layer in group)
    assert blocks[groups[0][0]].mlp is not blocks[groups[1][0]].mlp
    names = [name for name, _ in model.named_parameters() if ".mlp." in name]
    assert len(names) == 4 * len(groups)


def logits(model, seed=0):
    ids = torch.randint(0, 300, (2, 12), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return model(ids).logits


def test_a_shared_model_stores_each_group_once_and_computes_what_the_merged_one_does(base, tmp_path):
    shared, merged = build("share", base, n=3), build("merge", base, n=3)
    stored = sum(t.numel() for t in base.state.values())
    assert sum(t.numel() for t in shared.state.values()) == stored - 3 * FFN_PARAMETERS
    model = load_model(written(tmp_path / "shared", shared))
    assert_tied(model)
    assert sum(p.numel() for p in model.parameters()) == stored - 3 * FFN_PARAMETERS
    expected = logits(load_model(written(tmp_path / "merged", merged)))
    assert torch.equal(logits(model), expected)
    size_bytes = (tmp_path / "shared/model.safetensors").stat().st_size
    assert 0 < size_bytes - 4 * (stored - 3 * FFN_PARAMETERS) < 10_000  # the rest is the header


@pytest.mark.parametrize("auto", ["AutoModelForCausalLM", "AutoModelForSequenceClassification"])
def test_the_auto_classes_reload_tied_models_without_remote_code(base, tmp_path, auto):
    folder = written(tmp_path / "shared", build("share", base, n=3))
    model, info = getattr(transformers, auto).from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, output_loading_info=True
    )
    assert_tied(model)
    assert set(info["missing_keys"]) <= {"score.weight"}
    assert type(model).__name__.startswith("SharedFFN") and model.config.ffn_groups == [[0, 1, 2], [3, 4]]
    model.config.pad_token_id = 0
    assert torch.isfinite(logits(model)).all()
    model.save_pretrained(tmp_path / "again")
    names = load_file(tmp_path / "again/model.safetensors")
    assert sum(".mlp." in name for name in names) == 8
    again = getattr(transformers, auto).from_pretrained(tmp_path / "again", local_files_only=True)
    again.config.pad_token_id = 0
    assert_tied(again)
    assert torch.equal(logits(again), logits(model))


def test_ties_survive_half_deepcopy_and_an_optimiser_step(base, tmp_path):
    model = load_model(written(tmp_path, build("share", base, n=3)))
    assert_tied(copy.deepcopy(model).half())
    halved = copy.deepcopy(model).to(torch.bfloat16)
    assert_tied(halved)
    assert all(p.dtype == torch.bfloat16 for p in halved.parameters())
    assert_tied(model)
    twin = copy.deepcopy(model)
    assert_tied(twin)
    assert blocks_of(twin)[1].mlp is not blocks_of(model)[1].mlp, "the copy refers to its own FFN"
    before = logits(model)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=0.01)
    ids = torch.randint(0, 300, (4, 12), generator=torch.Generator().manual_seed(1))
    twin(ids, labels=ids).loss.backward()
    optimizer.step()
    assert_tied(twin)
    assert torch.equal(logits(model), before) and not torch.equal(logits(twin), before)
    # The step is that of one FFN used in every block: the gradient of all uses, applied once.
    prefix = family_of({"model_type": model.config.model_type}).ffn_in
    assert blocks_of(twin)[2].get_submodule(prefix) is blocks_of(twin)[0].get_submodule(prefix)


def test_the_tied_gradient_is_the_sum_of_the_copies(base, tmp_path):
    shared = load_model(written(tmp_path / "shared", build("share", base, n=3)))
    merged = load_model(written(tmp_path / "merged", build("merge", base, n=3)))
    ids = torch.randint(0, 300, (4, 12), generator=torch.Generator().manual_seed(1))
    for model in (shared, merged):
        model(ids, labels=ids).loss.backward()
    family = family_of(base.config)
    for part in ffn_names(family, 0):
        one = shared.get_parameter(ffn_names(family, 0)[part]).grad
        each = sum(merged.get_parameter(ffn_names(family, layer)[part]).grad for layer in (0, 1, 2))
        torch.testing.assert_close(one, each, rtol=1e-4, atol=1e-6)


def test_a_stock_trainer_checkpoint_resumes_tied(base, tmp_path, generator):
    folder = written(tmp_path / "shared", build("share", base, n=3))
    ids = torch.from_numpy(generator.integers(0, 300, (8, 16)))
    rows = [{"input_ids": row, "labels": row} for row in ids]
    common = {"per_device_train_batch_size": 2, "report_to": "none", "use_cpu": True, "disable_tqdm": True, "seed": 1}
    trained = {}
    for name, steps in (("whole", None), ("cut", 2)):
        arguments = transformers.TrainingArguments(
            str(tmp_path / name), max_steps=4, save_strategy="steps", save_steps=2, learning_rate=0.01,
            lr_scheduler_type="constant", **common,
        )  # fmt: skip
        trainer = transformers.Trainer(load_model(folder), arguments, train_dataset=rows)
        if steps is None:
            trainer.train()
        else:
            trainer.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-2"))
        assert_tied(trainer.model)
        trained[name] = trainer.model.eval()
    stored = load_file(tmp_path / "whole/checkpoint-2/model.safetensors")
    assert sum(".mlp." in name for name in stored) == 8
    torch.testing.assert_close(logits(trained["cut"]), logits(trained["whole"]), rtol=1e-5, atol=1e-5)


def test_training_by_our_loop_and_saving_keep_the_ties(base, tmp_path, generator, budget):
    model = load_model(written(tmp_path / "built", build("share", base, n=3, rank=2)))
    ids = torch.from_numpy(generator.integers(0, 300, (8, 16)))
    fit(model, [{"input_ids": row, "labels": row} for row in ids], budget, generator, "cpu")
    save_model(tmp_path / "trained", model, None)
    assert load_state(tmp_path / "trained").keys() == load_state(tmp_path / "built").keys()
    assert torch.equal(logits(load_model(tmp_path / "trained")), logits(model))


def test_the_expanded_export_is_stock_and_gives_the_same_logits(base, tmp_path):
    folder = written(tmp_path / "shared", build("share", base, n=3))
    expand_checkpoint(folder, tmp_path / "stock")
    config = json.loads((tmp_path / "stock/config.json").read_text())
    assert config["model_type"] == base.config["model_type"] and not set(KEYS) & set(config)
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "stock", local_files_only=True)
    assert type(stock).__module__.startswith("transformers.")
    assert torch.equal(logits(stock), logits(load_model(folder)))
    assert sum(t.numel() for t in load_state(tmp_path / "stock").values()) == sum(
        t.numel() for t in base.state.values()
    )
    with pytest.raises(InputError, match="not empty"):
        expand_checkpoint(folder, tmp_path / "stock")


def test_the_expanding_command(base, tmp_path, capsys):
    folder = written(tmp_path / "shared", build("share", base, n=5))
    assert main([str(folder), str(tmp_path / "stock")]) == 0
    assert "a stock checkpoint" in capsys.readouterr().out
    assert main([str(folder), str(tmp_path / "stock")]) == 2
    assert "not empty" in capsys.readouterr().err


def test_a_stock_model_expands_to_itself(base):
    state, config = expand(base.state, base.config)
    assert config == base.config and all(torch.equal(state[name], base.state[name]) for name in base.state)


def test_low_rank_deltas_are_counted_and_bring_the_blocks_nearer(base, tmp_path):
    plain, delta = build("share", base, n=3), build("share", base, n=3, rank=2)
    count = sum(t.numel() for t in delta.state.values()) - sum(t.numel() for t in plain.state.values())
    assert count == LAYERS * 2 * 2 * (HIDDEN + NEURONS)  # blocks x matrices x rank x (hidden size + neurons)
    model = load_model(written(tmp_path / "delta", delta))
    assert sum(p.numel() for p in model.parameters()) == sum(t.numel() for t in delta.state.values())
    family, (expanded, _) = family_of(base.config), expand(delta.state, delta.config)
    far, near = 0.0, 0.0
    for layer, anchor in enumerate((0, 0, 0, 3, 3)):
        order = torch.from_numpy(base.permutations[anchor, layer].astype(np.int64))
        for part, axis in (("in_weight", family.hidden_axis_in), ("out_weight", family.hidden_axis_out)):
            own = base.state[ffn_names(family, layer)[part]].index_select(axis, order)
            shared = plain.state[ffn_names(family, anchor)[part]]
            far += float((own - shared).square().sum())
            near += float((own - expanded[ffn_names(family, layer)[part]]).square().sum())
            # Eckart and Young: what is left are the singular values from the third on.
            rest = torch.linalg.svdvals(own - shared)[2:].square().sum()
            left = (own - expanded[ffn_names(family, layer)[part]]).square().sum()
            torch.testing.assert_close(left, rest, rtol=1e-3, atol=1e-4)
    assert near < far
    save_checkpoint(tmp_path / "stock", *expand(delta.state, delta.config), None)
    torch.testing.assert_close(logits(load_model(tmp_path / "stock")), logits(model), rtol=1e-4, atol=1e-4)


def test_full_rank_deltas_give_back_the_base_but_for_its_biases(base, tmp_path):
    state = dict(base.state)
    family = family_of(base.config)
    for layer in range(LAYERS):
        names = ffn_names(family, layer)
        state[names["in_bias"]] = torch.zeros(NEURONS)
        state[names["out_bias"]] = torch.zeros(HIDDEN)
    inputs = Inputs(state, base.config, base.permutations)
    built = build("share", inputs, n=3, rank=HIDDEN)
    save_checkpoint(tmp_path / "base", state, base.config, None)
    expected = logits(load_model(tmp_path / "base"))
    torch.testing.assert_close(logits(load_model(written(tmp_path / "shared", built))), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="rank"):
        build("share", inputs, n=3, rank=HIDDEN + 1)


def test_a_residual_of_zero_leaves_a_delta_that_can_learn():
    family = FAMILIES["gpt2"]
    ffn = {"in_weight": torch.ones(3, 4), "out_weight": torch.ones(4, 3)}
    deltas = low_rank_deltas(ffn, ffn, family, 2)
    assert deltas["delta_in_down"].abs().sum() > 0 and not deltas["delta_in_up"].any()


def test_training_the_deltas_alone_names_them_all(base):
    built = build("share", base, n=3, rank=1, train="deltas")
    family = family_of(base.config)
    assert set(built.trained) == {delta_name(family, layer, name) for layer in range(LAYERS) for name in DELTAS}
    assert build("share", base, n=3, rank=1).trained is None


def test_a_bypassed_ffn_adds_nothing(base, tmp_path):
    built, family = build("bypass", base, n=3), family_of(base.config)
    stored = sum(t.numel() for t in base.state.values())
    assert sum(t.numel() for t in built.state.values()) == stored - 3 * FFN_PARAMETERS
    assert built.notes == {"bypassed": [1, 2, 4]} and ffn_holders(built.config) == [0, None, None, 3, None]
    zeroed = dict(base.state)
    for layer in (1, 2, 4):
        zeroed.update({name: torch.zeros_like(zeroed[name]) for name in ffn_names(family, layer).values()})
    save_checkpoint(tmp_path / "zeroed", zeroed, base.config, None)
    expected = logits(load_model(tmp_path / "zeroed"))
    assert torch.equal(logits(load_model(written(tmp_path / "bypassed", built))), expected)
    save_checkpoint(tmp_path / "stock", *expand(built.state, built.config), None)
    assert torch.equal(logits(load_model(tmp_path / "stock")), expected)


def test_one_shared_ffn_is_run_in_every_block_and_counts_so_in_the_flops(base):
    shared, merged = build("share", base, n=3), build("merge", base, n=3)
    whole = flops_per_token(merged.state, merged.config, 64)
    assert flops_per_token(shared.state, shared.config, 64) == whole
    delta = build("share", base, n=3, rank=2)
    products = LAYERS * 2 * 2 * (HIDDEN + NEURONS)
    assert flops_per_token(delta.state, delta.config, 64) == whole + 2 * products
    bypassed = build("bypass", base, n=3)
    assert flops_per_token(bypassed.state, bypassed.config, 64) == whole - 2 * 3 * 2 * HIDDEN * NEURONS


def test_sharing_without_averaging_copies_the_anchor(base):
    built, family = build("share", base, n=3, average="anchor"), family_of(base.config)
    for anchor in (0, 3):
        assert all(torch.equal(built.state[name], base.state[name]) for name in ffn_names(family, anchor).values())


def test_runs_of_one_share_nothing(base, tmp_path):
    built = build("share", base, n=1)
    assert built.state.keys() == base.state.keys()
    save_checkpoint(tmp_path / "base", dict(base.state), base.config, None)
    assert torch.equal(logits(load_model(written(tmp_path / "shared", built))), logits(load_model(tmp_path / "base")))
