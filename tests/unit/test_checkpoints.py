import json
import os
import shutil
import struct

import pytest
from ffnfold import checkpoints, files
from ffnfold.errors import InputError

CONFIG = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_layer": 2,
    "n_embd": 8,
    "n_head": 2,
    "n_positions": 16,
    "vocab_size": 260,
    "bos_token_id": 256,
    "eos_token_id": 256,
}


def write_tokenizer(folder, entries=257):
    """A byte-level tokenizer without merges: 256 bytes and the end of text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*alphabet, "<|endoftext|>"])}
    vocab |= {f"extra{index}": index for index in range(257, entries)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def make_model(seed=0, **changes):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    options = {key: value for key, value in (CONFIG | changes).items() if key not in ("model_type", "architectures")}
    return GPT2LMHeadModel(GPT2Config(**options)).eval()


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tokenizer_folder):
    folder = tmp_path_factory.mktemp("saved")
    checkpoints.save_model(folder, make_model(), tokenizer_folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_write_json_is_sorted_and_leaves_no_temporary_file(tmp_path):
    checkpoints.write_json(tmp_path / "a.json", {"b": 1, "a": "é"})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "a": "é",\n  "b": 1\n}\n'.encode()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    checkpoints.write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError):
        checkpoints.write_json(tmp_path / "a.json", {"a": float("nan")})
    with pytest.raises(RuntimeError), checkpoints.atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert checkpoints.read_json(tmp_path / "a.json") == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_sha256_of_known_text(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert checkpoints.sha256_file(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_a_saved_model_loads_with_equal_logits_and_one_copy_of_the_embedding(saved):
    import torch

    model, loaded = make_model(), checkpoints.load_model(saved)
    tokens = torch.arange(10)[None]
    assert torch.equal(model(tokens).logits, loaded(tokens).logits)
    state = checkpoints.load_state(saved)
    assert "lm_head.weight" not in state and len(state) == 28
    assert sum(tensor.numel() for tensor in state.values()) == sum(p.numel() for p in model.parameters())
    checkpoints.verify_checkpoint(saved)
    assert checkpoints.checkpoint_sha256(saved) == checkpoints.sha256_file(saved / "model.safetensors")


def test_the_same_model_gives_the_same_bytes(saved, tmp_path, tokenizer_folder):
    checkpoints.save_model(tmp_path, make_model(), tokenizer_folder)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {p.name: p.read_bytes() for p in saved.iterdir()}


def test_views_and_shared_tensors_are_stored_as_copies(tmp_path):
    import torch

    base = torch.arange(12.0).reshape(3, 4)
    checkpoints.save_checkpoint(tmp_path, {"a": base, "b": base, "c": base[1:], "d": base.T}, {}, None)
    state = checkpoints.load_state(tmp_path)
    assert torch.equal(state["a"], state["b"]) and torch.equal(state["c"], base[1:]) and torch.equal(state["d"], base.T)
    assert (tmp_path / "model.safetensors").stat().st_size < 5 * 48 + 600


def test_a_changed_file_is_named_with_both_sums(copy):
    (copy / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"config\.json(.|\n)*44136fa355b3678a(.|\n)*expected: sha256"):
        checkpoints.verify_checkpoint(copy)


def test_classification_gets_a_fresh_head_only(saved):
    import torch

    torch.manual_seed(3)
    model = checkpoints.load_model(saved, "sequence_classification", num_labels=2)
    assert model.score.weight.shape == (2, 8)
    assert torch.equal(model.transformer.wte.weight, make_model().transformer.wte.weight)


def test_a_missing_tensor_is_not_made_up(copy):
    state = checkpoints.load_state(copy)
    del state["transformer.h.1.mlp.c_fc.weight"]
    checkpoints.save_checkpoint(copy, state, checkpoints.load_config(copy), None)
    with pytest.raises(InputError, match=r"missing: \['transformer\.h\.1\.mlp\.c_fc\.weight'\]"):
        checkpoints.load_model(copy)


def test_a_model_type_that_nobody_knows_is_refused_when_loaded(copy):
    checkpoints.write_json(copy / "config.json", checkpoints.load_config(copy) | {"model_type": "llama"})
    with pytest.raises(InputError, match="this model family is not supported"):
        checkpoints.load_model(copy)


def test_the_tokenizer_gets_a_padding_token(saved):
    tokenizer = checkpoints.load_tokenizer(saved)
    assert len(tokenizer) == 257 and tokenizer.pad_token == tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.decode(tokenizer("Hello world")["input_ids"]) == "Hello world"


@pytest.mark.parametrize("entries", [261, 257])
def test_a_tokenizer_of_another_vocabulary_is_refused(copy, entries):
    write_tokenizer(copy, entries)
    if entries == 257:  # far shorter than the embedding
        checkpoints.write_json(copy / "config.json", checkpoints.load_config(copy) | {"vocab_size": 1000})
    for check in (checkpoints.load_tokenizer, checkpoints.inspect_local):
        with pytest.raises(InputError, match=f"another vocabulary(.|\n)*{entries} entries"):
            check(copy)


def test_an_empty_tokenizer_is_refused(copy):
    content = checkpoints.read_json(copy / "tokenizer.json")
    content["model"]["vocab"], content["added_tokens"] = {}, []
    checkpoints.write_json(copy / "tokenizer.json", content)
    with pytest.raises(InputError, match="the tokenizer is empty"):
        checkpoints.load_tokenizer(copy)


def test_inspect_accepts_a_sound_folder_without_torch(saved):
    import subprocess
    import sys

    code = "import sys; from ffnfold.files import inspect_local; print(inspect_local(sys.argv[1])['n_layer']); "
    code += "assert not {'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(saved)], capture_output=True, text=True)
    assert done.stdout == "2\n", done.stderr


def _truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _truncate_header(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def _append(folder):
    with open(folder / "model.safetensors", "ab") as stream:
        stream.write(b"0000")


def _garble(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 4) + b"nope")


def _pickle_only(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _no_weights(folder):
    (folder / "model.safetensors").unlink()


def _another_architecture(folder):
    checkpoints.write_json(folder / "config.json", {"model_type": "llama", "vocab_size": 260})


def _tied_ffns(folder):
    checkpoints.write_json(folder / "config.json", checkpoints.load_config(folder) | {"model_type": "gpt2_shared_ffn"})


def _no_config(folder):
    (folder / "config.json").unlink()


def _config_not_json(folder):
    (folder / "config.json").write_text("{")


def _no_tokenizer(folder):
    (folder / "tokenizer.json").unlink()


def _no_folder(folder):
    shutil.rmtree(folder)


DAMAGES = [
    (_truncate, r"truncated(.|\n)*by its header"),
    (_truncate_header, r"truncated(.|\n)*100 bytes"),
    (_append, "too long"),
    (_garble, "not a safetensors file"),
    (_pickle_only, r"never loaded(.|\n)*pytorch_model\.bin(.|\n)*convert"),
    (_no_weights, "not safetensors(.|\n)*no weights"),
    (_another_architecture, "another architecture(.|\n)*'llama'(.|\n)*gpt2 or gpt_neox(.|\n)*Pythia"),
    (_tied_ffns, r"another architecture(.|\n)*'gpt2_shared_ffn'(.|\n)*python -m ffnfold\.expand CHECKPOINT FOLDER"),
    (_no_config, r"missing(.|\n)*config\.json"),
    (_config_not_json, r"not valid JSON(.|\n)*config\.json"),
    (_no_tokenizer, "tokenizer's files are missing"),
    (_no_folder, "folder does not exist(.|\n)*`source`"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_a_damaged_checkpoint_is_refused_before_and_while_fetching(copy, tmp_path, damage, message):
    damage(copy)
    with pytest.raises(InputError, match=message):
        checkpoints.inspect_local(copy)
    with pytest.raises(InputError, match=message):
        checkpoints.fetch_checkpoint(copy, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def write_legacy(folder, state, config, tokenizer):
    """A checkpoint as the first GPT-2 upload has it: no prefix, attention masks stored, half precision, head stored."""
    import torch
    from safetensors.torch import save_file

    shutil.copytree(tokenizer, folder)
    old = {name.removeprefix("transformer."): tensor.half() for name, tensor in state.items()}
    for layer in range(2):
        old[f"h.{layer}.attn.bias"] = torch.tril(torch.ones(16, 16))[None, None]
        old[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    old["lm_head.weight"] = old["wte.weight"].clone()
    save_file(old, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "float16"}))
    return folder


def test_a_legacy_checkpoint_takes_the_canonical_form(saved, tmp_path, tokenizer_folder):
    import torch

    state = checkpoints.load_state(saved)
    legacy = write_legacy(tmp_path / "legacy", state, CONFIG, tokenizer_folder)
    checkpoints.fetch_checkpoint(legacy, None, tmp_path / "out")
    taken = checkpoints.load_state(tmp_path / "out")
    assert set(taken) == set(state)
    assert all(taken[name].dtype == torch.float32 for name in taken)
    assert all(torch.equal(taken[name], state[name].half().float()) for name in taken)
    checkpoints.verify_checkpoint(tmp_path / "out")
    checkpoints.load_model(tmp_path / "out")
    assert len(checkpoints.load_tokenizer(tmp_path / "out")) == 257
    assert str(tmp_path) not in "".join(path.read_text() for path in (tmp_path / "out").glob("*.json"))
    checkpoints.fetch_checkpoint(legacy, None, tmp_path / "again")
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_shards_are_joined_and_a_missing_shard_is_named(saved, tmp_path, tokenizer_folder):
    from safetensors.torch import save_file

    state = checkpoints.load_state(saved)
    names = sorted(state)
    folder = shutil.copytree(tokenizer_folder, tmp_path / "sharded")
    shards = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for shard, held in shards.items():
        save_file({name: state[name] for name in held}, folder / shard)
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    checkpoints.fetch_checkpoint(folder, None, tmp_path / "out")
    assert checkpoints.checkpoint_sha256(tmp_path / "out") == checkpoints.checkpoint_sha256(saved)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"shard(.|\n)*model-00002"):
        checkpoints.inspect_local(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layer": 3}, r"transformer\.h\.2\.ln_1\.weight is missing; (.|\n)*and 9 more"),
        ({"n_layer": 1}, r"transformer\.h\.1\.\S+ is unexpected"),
        ({"n_positions": 32}, r"wpe\.weight has shape \(16, 8\), not \(32, 8\)"),
        ({"n_head": 3}, "does not describe a model"),
        ({"layer_norm_epsilon": "small"}, r"does not describe a model(.|\n)*layer_norm_epsilon"),
    ],
)
def test_weights_that_do_not_fit_the_configuration_are_named(copy, tmp_path, change, message):
    checkpoints.write_json(copy / "config.json", checkpoints.load_config(copy) | change)
    with pytest.raises(InputError, match=message):
        checkpoints.fetch_checkpoint(copy, None, tmp_path / "out")


def test_the_tokenizer_may_come_from_another_folder(copy, tmp_path, tokenizer_folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copy / name).unlink()
    checkpoints.fetch_checkpoint(copy, None, tmp_path / "out", tokenizer_source=tokenizer_folder)
    assert len(checkpoints.load_tokenizer(tmp_path / "out")) == 257


def test_a_hash_is_taken_again_only_when_size_or_time_differ(tmp_path, monkeypatch):
    path, cache = tmp_path / "a.bin", tmp_path / "cache.json"
    path.write_bytes(b"one")
    first = checkpoints.sha256_file(path)
    assert files.cached_sha256([path], cache) == {str(path): first}
    monkeypatch.setattr(files, "sha256_file", lambda _: "read again")
    assert files.cached_sha256([path], cache) == {str(path): first}
    os.utime(path, ns=(1, 1))
    assert files.cached_sha256([path], cache) == {str(path): "read again"}
    cache.write_text("not JSON")
    assert files.cached_sha256([path], cache) == {str(path): "read again"}


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    (tmp_path / ".a.json.0123.tmp").write_text("half")
    (tmp_path / ".b.json.0123.tmp").write_text("another file's")
    checkpoints.write_json(tmp_path / "a.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.json.0123.tmp", "a.json"]
