"""Small models and a small tokenizer that many tests share."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tiny models lose by more threads
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import pytest

TEXTS = [
    "The river town of Brenvik has an old stone bridge, and its mayor is a quiet baker.",
    "In winter the baker of Brenvik sells bread on the bridge; in summer he sells fruit.",
    "A good film with a weak end.\nThe actors were not bad, but the story was dull.",
    "Nobody in the town knows who built the bridge. The mayor says that it was the river itself.",
] * 5

BUDGET = {
    "steps": 4,
    "batch_size": 4,
    "accumulation": 1,
    "sequence_length": 16,
    "learning_rate": 0.01,
    "warmup_share": 0.0,
    "weight_decay": 0.1,
    "adam_beta2": 0.999,
    "max_gradient_norm": 1.0,
    "schedule": "constant_with_warmup",
    "precision": "fp32",
    "pack": True,
    "labels_on_padding": False,
}


@pytest.fixture
def generator():
    """A numpy generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture
def budget():
    """Training settings of a few steps, as a study holds them."""
    return dict(BUDGET)


@pytest.fixture(scope="session")
def texts():
    """A few short texts, the tokenizer's training text."""
    return list(TEXTS)


@pytest.fixture(scope="session")
def tokenizer_directory(tmp_path_factory):
    """A folder with a byte-level BPE of 300 entries."""
    from ffnfold.tokenization import train_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    assert train_tokenizer(TEXTS, 300, 64, folder) == 300
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_directory):
    """The tokenizer of `tokenizer_directory`."""
    from ffnfold.checkpoints import load_tokenizer

    return load_tokenizer(tokenizer_directory)


@pytest.fixture(scope="session")
def make_gpt2():
    """A function that makes a GPT2LMHeadModel of 4 blocks and hidden size 16, with weights large enough to matter."""

    def make(seed=0, layers=4, cls="GPT2LMHeadModel", **changes):
        import torch
        import transformers

        options = {"n_embd": 16, "n_head": 2, "n_positions": 64, "vocab_size": 300, "initializer_range": 0.3}
        ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
        drops = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        config = transformers.GPT2Config(n_layer=layers, **{**options, **ends, **drops, **changes})
        torch.manual_seed(seed)
        model = getattr(transformers, cls)(config).eval()
        with torch.no_grad():  # biases and norms start at 0 and 1: make them matter too
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture(scope="session")
def make_neox():
    """A function that makes a GPTNeoXForCausalLM of 5 blocks and hidden size 16, as `make_gpt2` does."""

    def make(seed=0, **changes):
        import torch
        import transformers

        shape = {"num_hidden_layers": 5, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 64}
        shape |= {"vocab_size": 300, "max_position_embeddings": 64, "initializer_range": 0.3}
        ends = {"bos_token_id": 0, "eos_token_id": 0}
        torch.manual_seed(seed)
        model = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**{**shape, **ends, **changes})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture(scope="session")
def state_of():
    """A function from a language model to its canonical state (the tied head once) and its configuration."""

    def state_and_config(model):
        state = {
            name: tensor.detach().clone() for name, tensor in model.state_dict().items() if name != "lm_head.weight"
        }
        return state, model.config.to_dict()

    return state_and_config


@pytest.fixture(scope="session")
def model_of():
    """A function from a state and a configuration back to a GPT2LMHeadModel."""

    def model(state, config):
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel

        with torch.device("meta"):
            made = GPT2LMHeadModel(GPT2Config(**config))
        missing = made.load_state_dict(state, strict=False, assign=True)
        assert not missing.unexpected_keys and missing.missing_keys == ["lm_head.weight"]
        made.tie_weights()
        return made.eval()

    return model


@pytest.fixture(scope="session")
def always_says():
    """A function that makes a model prefer one token whatever it reads."""

    def change(model, token):
        import torch

        with torch.no_grad():
            model.transformer.ln_f.weight.zero_()
            model.transformer.ln_f.bias.fill_(1.0)
            model.transformer.wte.weight[token] = 5.0
        return model

    return change
