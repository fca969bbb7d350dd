"""The architecture table proved on a second family, GPT-NeoX: everything that is done to GPT-2, done to it."""

import json

import numpy as np
import pytest
import torch
import transformers
from ffnfold import checkpoints
from ffnfold.alignment import align_pairs, collect_pre_activations, permute_ffn
from ffnfold.architecture import (
    FAMILIES,
    family_of,
    ffn_names,
    flops_per_token,
    keep_blocks,
    layer_count,
    positions_of,
)
from ffnfold.calibration import correlate_layers
from ffnfold.calibration_text import calibration_batches
from ffnfold.errors import InputError
from ffnfold.methods import REGISTRY, Inputs
from ffnfold.metrics import latency, parameters, perplexity, sentiment, summarization
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch.utils.flop_counter import FlopCounterMode

NEOX = FAMILIES["gpt_neox"]
AVERAGING = {"groups": "runs", "reference": "first", "align": "activations", "average": "mean", "fit": {"steps": 0}}
STATISTICS = {"confidence": 0.95, "resamples": 20}
IDS = torch.randint(0, 300, (2, 12), generator=torch.Generator().manual_seed(0))


def state_of(model):
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def logits(state, config, ids=IDS):
    """What a state says, every tensor of the model taken from it."""
    model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**config)).to(next(iter(state.values())).dtype)
    model.load_state_dict(state)  # strict: none missing, none left
    with torch.no_grad():
        return model.eval()(ids).logits


@pytest.fixture(scope="module")
def model(make_neox):
    return make_neox()


@pytest.fixture(scope="module")
def base(model):
    """State, configuration and random permutations."""
    generator = np.random.default_rng(1)
    orders = np.tile(np.arange(64, dtype=np.int32), (5, 5, 1))
    for a in range(5):
        for b in range(a + 1, 5):
            orders[a, b] = generator.permutation(64)
            orders[b, a, orders[a, b]] = np.arange(64)
    return Inputs(state_of(model), model.config.to_dict(), orders)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, model, tokenizer_directory):
    folder = tmp_path_factory.mktemp("saved")
    checkpoints.save_model(folder, model, tokenizer_directory)
    return folder


def build(method, inputs, **options):
    return REGISTRY[method].build(inputs, {"method": method, **options})


# --------------------------------------------------------------------------------------------------- names


def test_names_and_shapes_are_those_of_the_model(model, base):
    assert family_of(base.config) is NEOX and layer_count(base.config) == 5 and positions_of(base.config) == 64
    shapes = {part: tuple(base.state[name].shape) for part, name in ffn_names(NEOX, 4).items()}
    assert shapes == {"in_weight": (64, 16), "in_bias": (64,), "out_weight": (16, 64), "out_bias": (16,)}
    assert {NEOX.embedding, NEOX.head} <= set(base.state) and NEOX.stored_head not in base.state
    matrices = {NEOX.blocks.format(layer=2) + name for name in NEOX.block_matrices}
    assert matrices == {name for name, t in base.state.items() if ".layers.2." in name and t.ndim == 2}


def test_flops_by_hand_and_by_torchs_counter(make_neox, base):
    # A block's matrices: 16x48 + 16x16 + 16x64 + 64x16 = 3,072; untied head 300x16; attention 4 x 5 x 16 x context.
    assert flops_per_token(base.state, base.config, 10) == 2 * (5 * 3072 + 4800) + 4 * 5 * 16 * 10
    model = make_neox(attn_implementation="eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 7, dtype=torch.int64), use_cache=False)
    assert counter.get_total_flops() == 7 * flops_per_token(base.state, base.config, 7)


# --------------------------------------------------------------------------------------------------- surgery


@pytest.mark.parametrize("parallel", [True, False])
def test_a_permutation_of_neurons_leaves_the_logits(make_neox, parallel):
    model = make_neox(use_parallel_residual=parallel).double()
    state, config = state_of(model), model.config.to_dict()
    permuted = dict(state)
    for layer in range(5):
        names = ffn_names(NEOX, layer)
        order = torch.randperm(64, generator=torch.Generator().manual_seed(layer))
        ffn = permute_ffn({part: state[name] for part, name in names.items()}, order, NEOX)
        assert torch.equal(ffn["in_weight"][0], state[names["in_weight"]][order[0]])
        permuted |= {names[part]: tensor for part, tensor in ffn.items()}
    torch.testing.assert_close(logits(permuted, config), logits(state, config), rtol=1e-10, atol=1e-10)


def test_merging_an_ffn_with_itself_is_the_identity(base):
    state = dict(base.state)
    for layer in range(1, 5):  # block 0's FFN in every block, in the order that the permutations undo
        undo = torch.from_numpy(np.argsort(base.permutations[0, layer]))
        ffn = permute_ffn({part: state[name] for part, name in ffn_names(NEOX, 0).items()}, undo, NEOX)
        state |= {name: ffn[part] for part, name in ffn_names(NEOX, layer).items()}
    merged = build("merge", Inputs(state, base.config, base.permutations), n=5, write="all", **AVERAGING).state
    assert all(torch.equal(merged[name], state[name]) for name in ffn_names(NEOX, 0).values())
    torch.testing.assert_close(logits(merged, base.config), logits(state, base.config), rtol=1e-4, atol=1e-4)


def test_a_merged_run_has_the_mean_of_its_aligned_ffns(base):
    merged = build("merge", base, n=2, write="all", **AVERAGING)
    order = torch.from_numpy(base.permutations[0, 1]).long()
    first, second = (ffn_names(NEOX, layer) for layer in (0, 1))
    for part, axis in (("in_weight", 0), ("in_bias", 0), ("out_weight", 1)):
        expected = (base.state[first[part]] + base.state[second[part]].index_select(axis, order)) / 2
        torch.testing.assert_close(merged.state[first[part]], expected)
        assert torch.equal(merged.state[first[part]], merged.state[second[part]])
    assert parameters.count_parameters(merged.state)[0] == parameters.count_parameters(base.state)[0]
    assert merged.state.keys() == base.state.keys() and torch.isfinite(logits(merged.state, merged.config)).all()
    changed = {name for name in base.state if not torch.equal(merged.state[name], base.state[name])}
    assert changed == {name for layer in range(4) for name in ffn_names(NEOX, layer).values()}  # block 4 is alone


def test_compressing_keeps_the_first_block_of_a_run(base):
    built = build("compress", base, n=2, **AVERAGING)
    assert built.config["num_hidden_layers"] == 3 and layer_count(base.config) == 5
    merged = build("merge", base, n=2, write="all", **AVERAGING).state
    expected, config = keep_blocks(merged, base.config, [0, 2, 4])
    assert built.state.keys() == expected.keys() and config == built.config
    assert all(torch.equal(built.state[name], expected[name]) for name in expected)
    assert logits(built.state, built.config).shape == (2, 12, 300)


@pytest.mark.parametrize("method", ["merge", "compress"])
def test_runs_of_one_are_the_identity(base, method):
    built = build(method, base, n=1, write="all", **AVERAGING)
    assert built.config == base.config and built.state.keys() == base.state.keys()
    assert all(torch.equal(built.state[name], base.state[name]) for name in base.state)


@pytest.mark.parametrize("scope", ["all", "blocks", "embedding"])
def test_pruning_reaches_its_count_in_its_scope(base, scope):
    stored, nonzero = parameters.count_parameters(base.state)
    assert stored == nonzero
    built = build("prune", base, scope=scope, keep=stored - 1000, score="magnitude")
    assert parameters.count_parameters(built.state) == (stored, stored - 1000)
    pruned = {name for name in base.state if not torch.equal(built.state[name], base.state[name])}
    blocks = {NEOX.blocks.format(layer=layer) + name for layer in range(5) for name in NEOX.block_matrices}
    assert pruned <= {"all": blocks | {NEOX.embedding}, "blocks": blocks, "embedding": {NEOX.embedding}}[scope]


def test_keep_blocks_renumbers(base):
    state, config = keep_blocks(base.state, base.config, [4, 1])
    assert config["num_hidden_layers"] == 2
    assert state["gpt_neox.layers.0.mlp.dense_h_to_4h.bias"] is base.state["gpt_neox.layers.4.mlp.dense_h_to_4h.bias"]
    assert state["gpt_neox.layers.1.attention.dense.weight"] is base.state["gpt_neox.layers.1.attention.dense.weight"]
    assert state[NEOX.head] is base.state[NEOX.head] and len(state) == 2 * 12 + 4
    assert logits(state, config).shape == (2, 12, 300)


# --------------------------------------------------------------------------------------------------- alignment


def test_pre_activations_are_those_of_the_first_ffn_matrix(model, base):
    mask = torch.ones_like(IDS)
    mask[1, 9:] = 0
    (found,) = collect_pre_activations(model, NEOX, 5, [{"input_ids": IDS, "attention_mask": mask}])
    assert found.shape == (5, 12 + 9, 64)
    with torch.no_grad():  # block 0 reads the embedding through its second norm: the residual is parallel
        embedded = model.gpt_neox.embed_in(IDS)[mask.bool()]
        block = model.gpt_neox.layers[0]
        expected = block.post_attention_layernorm(embedded) @ block.mlp.dense_h_to_4h.weight.T
    torch.testing.assert_close(found[0], expected + block.mlp.dense_h_to_4h.bias)


def test_calibration_finds_the_neurons_of_a_permuted_copy(make_neox, tokenizer, texts, generator):
    # Blocks that add nothing see one residual stream, so equal FFNs have equal activations.
    state, config = state_of(make_neox()), make_neox().config.to_dict()
    order = torch.randperm(64, generator=torch.Generator().manual_seed(5))
    for layer in range(5):
        prefix = NEOX.blocks.format(layer=layer)
        for name in ("attention.dense.weight", "attention.dense.bias", "mlp.dense_4h_to_h.weight"):
            state[prefix + name].zero_()
        state[prefix + "mlp.dense_4h_to_h.bias"].zero_()
        for name in ("post_attention_layernorm.weight", "post_attention_layernorm.bias"):
            state[prefix + name] = state[NEOX.blocks.format(layer=0) + name]
    ffn = permute_ffn({part: state[name] for part, name in ffn_names(NEOX, 0).items()}, order, NEOX)
    state |= {name: ffn[part] for part, name in ffn_names(NEOX, 1).items()}
    model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**config)).eval()
    model.load_state_dict(state)
    settings = {"tokens": 300, "sequence_length": 32, "count_padding": False, "max_items": None}
    batches = calibration_batches(model, tokenizer, texts, "\n", settings, generator, "cpu", 1)
    statistics = correlate_layers(model, batches)
    permutations, rows = align_pairs(statistics)
    assert statistics.count == 300 and rows[0]["mean_correlation_matched"] == pytest.approx(1, abs=1e-3)
    assert np.array_equal(permutations[1, 0], order.numpy())
    with pytest.raises(InputError, match=r"alignment\.sequence_length"):
        settings = {**settings, "sequence_length": 65}
        calibration_batches(model, tokenizer, texts, "\n", settings, generator, "cpu", 1)


# --------------------------------------------------------------------------------------------------- checkpoints


def test_a_saved_model_loads_with_equal_logits_and_the_published_names(saved, model):
    loaded = checkpoints.load_model(saved)
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)
    stored, state = load_file(saved / "model.safetensors"), checkpoints.load_state(saved)
    assert "embed_out.weight" in stored and "lm_head.weight" not in stored
    assert state.keys() == model.state_dict().keys()
    assert sum(t.numel() for t in state.values()) == sum(p.numel() for p in model.parameters())
    checkpoints.inspect_local(saved)


def test_stock_transformers_reads_what_is_written(saved, model):
    loaded = transformers.AutoModelForCausalLM.from_pretrained(saved, local_files_only=True).eval()
    with torch.no_grad():
        assert torch.equal(loaded(IDS).logits, model(IDS).logits)


def test_classification_gets_a_fresh_head_and_leaves_the_old(saved, model, tmp_path):
    torch.manual_seed(3)
    classifier = checkpoints.load_model(saved, "sequence_classification", num_labels=2, pad_token_id=0)
    assert classifier.score.weight.shape == (2, 16)
    assert torch.equal(classifier.gpt_neox.embed_in.weight, model.gpt_neox.embed_in.weight)
    checkpoints.save_model(tmp_path, classifier, None)
    with pytest.raises(InputError, match=r"missing: \['lm_head\.weight'\], unexpected: \['score\.weight'\]"):
        checkpoints.load_model(tmp_path)


def test_a_tied_head_is_written_once(make_neox, tmp_path):
    model = make_neox(tie_word_embeddings=True)
    checkpoints.save_model(tmp_path, model, None)
    state = checkpoints.load_state(tmp_path)
    assert NEOX.head not in state
    assert flops_per_token(state, checkpoints.load_config(tmp_path), 10) == 2 * (5 * 3072 + 4800) + 4 * 5 * 16 * 10
    with torch.no_grad():
        assert torch.equal(checkpoints.load_model(tmp_path)(IDS).logits, model(IDS).logits)


def write_pythia(folder, model, tokenizer_directory, **changes):
    """A folder as Pythia's are: half precision, old buffers, old names of settings, and its own tokenizer class.

    As there (50,304 rows, 50,277 tokens), the embedding has a few rows more than the tokenizer has tokens: 304 and 301.
    """
    folder.mkdir()
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    state["embed_out.weight"] = state.pop("lm_head.weight")
    for layer in range(5):
        prefix = f"gpt_neox.layers.{layer}.attention."
        state[prefix + "bias"] = torch.tril(torch.ones(64, 64, dtype=torch.uint8))[None, None]
        state[prefix + "masked_bias"] = torch.tensor(-1e9)
        state[prefix + "rotary_emb.inv_freq"] = torch.ones(2)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "num_hidden_layers": 5,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "vocab_size": 304,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-05,
        "rotary_emb_base": 20000,
        "rotary_pct": 0.5,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_parallel_residual": True,
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    tokenizer = Tokenizer.from_file(str(tokenizer_directory / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|padding|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, "tokenizer_class": "GPTNeoXTokenizer"}))
    return folder


def test_a_checkpoint_as_pythias_are_takes_the_canonical_form(
    make_neox, tmp_path, tokenizer_directory, tokenizer, texts
):
    rope = {"rope_type": "default", "rope_theta": 20000, "partial_rotary_factor": 0.5}
    model = make_neox(rope_parameters=rope, vocab_size=304)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())  # not `model.half()`, which rounds the rotary frequencies too
    source = write_pythia(tmp_path / "source", model, tokenizer_directory)
    checkpoints.fetch_checkpoint(source, None, tmp_path / "out")
    state = checkpoints.load_state(tmp_path / "out")
    assert state.keys() == model.state_dict().keys()  # the attention's real biases among them
    assert all(tensor.dtype == torch.float32 for tensor in state.values())
    with torch.no_grad():
        assert torch.equal(checkpoints.load_model(tmp_path / "out")(IDS).logits, model(IDS).logits)
    taken = checkpoints.load_tokenizer(tmp_path / "out")
    assert taken(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert (len(taken), taken.eos_token, taken.pad_token) == (301, "<|endoftext|>", "<|padding|>")


def test_a_checkpoint_without_its_prefix_is_taken_in(make_neox, tmp_path, tokenizer_directory):
    model = make_neox(vocab_size=304)
    source = write_pythia(tmp_path / "source", model, tokenizer_directory)
    state = {n.removeprefix("gpt_neox."): t for n, t in load_file(source / "model.safetensors").items()}
    save_file(state, source / "model.safetensors")
    checkpoints.fetch_checkpoint(source, None, tmp_path / "out")
    assert checkpoints.load_state(tmp_path / "out").keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": 6}, r"gpt_neox\.layers\.5\.\S+ is missing; (.|\n)*num_hidden_layers, hidden_size"),
        ({"vocab_size": 305}, r"embed_in\.weight has shape \(304, 16\), not \(305, 16\)"),
        ({"vocab_size": 300}, "another vocabulary"),
        ({"vocab_size": 1000}, "another vocabulary"),
        ({"num_attention_heads": 3}, "does not describe a model"),
        ({"model_type": "gpt_neox_shared_ffn"}, r"another architecture(.|\n)*python -m ffnfold\.expand"),
    ],
)
def test_weights_that_do_not_fit_are_named(make_neox, tmp_path, tokenizer_directory, change, message):
    source = write_pythia(tmp_path / "source", make_neox(vocab_size=304), tokenizer_directory, **change)
    with pytest.raises(InputError, match=message):
        checkpoints.fetch_checkpoint(source, None, tmp_path / "out")


# --------------------------------------------------------------------------------------------------- metrics


def test_perplexity_of_a_model_that_knows_nothing(make_neox, tokenizer, texts, generator):
    model = make_neox()
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    settings = {"window": 32, "stride": 16, "batch_size": 4, "truncate_tokens": None, "score_padding": False}
    settings |= {"pad_to": "longest", "max_items": None}
    values, _ = perplexity.measure({"": model}, tokenizer, texts, "\n", settings, STATISTICS, generator, "cpu")
    assert values["token_perplexity"].value == pytest.approx(300, rel=1e-5)


def test_latency_and_parameters(model, base, generator):
    settings = {"prompt_tokens": 4, "generated_tokens": 3, "warmup": 1, "repeats": 3, "threads": 1}
    settings |= {"stop_at_end_of_text": False, "max_items": None}
    values, _ = latency.measure(model, model, np.arange(1, 12), settings, STATISTICS, generator, "cpu")
    assert values["generated_tokens"].value == 3 and values["latency_ms_memory_bound"].value > 0
    counted = parameters.measure(base.state, base.config, 1, {"context_length": 10})
    # 16-wide blocks: 2 x 32 norms, 816 + 272 attention, 1,088 + 1,040 FFN = 3,280; two of 300 x 16; last norm 32.
    assert counted["stored_parameters"].value == 5 * 3280 + 2 * 4800 + 32


def test_summaries_fit_the_positions(model, tokenizer, texts, generator):
    settings = {"prompt": "\nTL;DR:", "article_tokens": 12, "generated_tokens": 8, "beams": 1, "batch_size": 3}
    settings |= {"no_repeat_ngram_size": 0, "include_prompt": False, "max_items": None}
    test = {"id": list("abc"), "article": texts[:3], "highlights": texts[:3]}
    arguments = (STATISTICS, generator, "cpu")
    values, items = summarization.measure(model, tokenizer, test, settings, *arguments)
    assert len(items) == 3 and 0 <= values["rouge1"].value <= 1
    with pytest.raises(InputError, match="at most 64"):
        summarization.measure(model, tokenizer, test, {**settings, "generated_tokens": 60}, *arguments)


def test_sentiment_trains_the_classifier(saved, tokenizer, texts, generator, budget):
    classifier = checkpoints.load_model(saved, "sequence_classification", num_labels=2, pad_token_id=0)
    reviews = {"id": list("abcdefgh"), "text": texts[:8], "label": [0, 1] * 4}
    settings = {"max_length": 16, "eval_batch_size": 4, "training": budget, "pool": "last_token"}
    settings |= {"max_items": None, "max_training_items": None}
    values, items = sentiment.measure(classifier, tokenizer, reviews, reviews, settings, STATISTICS, generator, "cpu")
    assert len(items) == 8 and 0 <= values["accuracy"].value <= 100
