import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ffnfold.hub import is_hub_id
from hub_stand_in import HubStandIn

SPLITS = ("train", "validation", "test")
CONFIGS = """---
configs:
- config_name: wikitext-2-raw-v1
  data_files:
  - {split: train, path: wikitext-2-raw-v1/train-*}
  - {split: validation, path: wikitext-2-raw-v1/validation-*}
  - {split: test, path: wikitext-2-raw-v1/test-*}
- config_name: wikitext-103-v1
  data_files:
  - {split: train, path: wikitext-103-v1/train-*}
---
"""


def parquet(**columns):
    import pyarrow
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


def checkpoint_files():
    """A tiny random GPT-2 as the first upload has it: names without prefix, attention masks stored."""
    import numpy
    from safetensors.numpy import save

    rng = numpy.random.default_rng(0)
    shapes = {"wte.weight": (260, 8), "wpe.weight": (16, 8), "ln_f.weight": (8,), "ln_f.bias": (8,)}
    for name, shape in {
        "attn.c_attn": (8, 24),
        "attn.c_proj": (8, 8),
        "mlp.c_fc": (8, 32),
        "mlp.c_proj": (32, 8),
    }.items():
        shapes |= {f"h.0.{name}.weight": shape, f"h.0.{name}.bias": shape[1:]}
    for name in ("ln_1", "ln_2"):
        shapes |= {f"h.0.{name}.weight": (8,), f"h.0.{name}.bias": (8,)}
    state = {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}
    state["h.0.attn.bias"] = numpy.tril(numpy.ones((1, 1, 16, 16), dtype="float32"))
    config = {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 2, "n_positions": 16, "vocab_size": 260}
    vocab = {chr(0x100 + index) if index else "<|endoftext|>": index for index in range(257)}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            | {"id": 0, "content": "<|endoftext|>", "special": True}
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    }
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    return {
        "README.md": b"# tiny\n",
        "config.json": json.dumps(config | {"eos_token_id": 0, "bos_token_id": 0}).encode(),
        "model.safetensors": save(state, metadata={"format": "pt"}),
        "onnx/config.json": b"{}",
        "tokenizer.json": json.dumps(tokenizer).encode(),
        "tokenizer_config.json": json.dumps(names).encode(),
        "pytorch_model.bin": b"never asked for",
    }


@pytest.fixture(scope="module")
def hub():
    with HubStandIn() as server:
        files = checkpoint_files()
        server.add("models", "acme/tiny-gpt2", files)
        server.add("models", "acme/pickled", {name: data for name, data in files.items() if "safetensors" not in name})
        server.add("models", "acme/llama", files | {"config.json": b'{"model_type": "llama"}'})
        server.add("models", "acme/cut", files | {"model.safetensors": files["model.safetensors"][:-64]})
        server.add("models", "acme/gated", files, gated=True)
        other = bytearray(files["model.safetensors"])
        other[-1] ^= 1
        server.add("models", "acme/tampered", files, sent={"model.safetensors": bytes(other)})
        wiki = {
            f"wikitext-2-raw-v1/{split}-00000-of-00001.parquet": parquet(text=["", f" = {split} = \n"])
            for split in SPLITS
        }
        wiki["wikitext-103-v1/train-00000-of-00001.parquet"] = parquet(text=["other"])
        server.add("datasets", "acme/wikitext", wiki | {"README.md": CONFIGS.encode()})
        reviews = parquet(text=[f"review {index}" for index in range(20)], label=[0] * 10 + [1] * 10)
        splits = ("train", "test", "unsupervised")
        server.add("datasets", "acme/imdb", {f"data/{split}-00000-of-00001.parquet": reviews for split in splits})
        news = {
            f"3.0.0/{split}-{part:05d}-of-00002.parquet": parquet(
                article=[f"a{part}"] * 2, highlights=["h"] * 2, id=["1", "2"]
            )
            for split in SPLITS
            for part in range(2)
        }
        card = CONFIGS.replace("wikitext-2-raw-v1", "3.0.0").replace("wikitext-103-v1", "1.0.0")
        server.add("datasets", "acme/news", news | {"1.0.0/train-0.parquet": reviews, "README.md": card.encode()})
        server.add("datasets", "acme/gated", {"data/train-00000-of-00001.parquet": reviews}, gated=True)
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def ask(call, home, endpoint, **variables):
    """Run one call in a process of its own, since the libraries read HF_ENDPOINT when imported; return its answer."""
    program = (
        "from ffnfold import checkpoints, datasets, hub\nfrom ffnfold.errors import InputError\n"
        f"try:\n    {call}\n    print('done')\nexcept InputError as error:\n    print(error)\n"
    )
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("HF_") and "proxy" not in name.lower()
    }
    environment = kept | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "OMP_NUM_THREADS": "1"} | variables
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(hub, kind, name):
    return hub.repositories[kind, name].commit


def fetch(source, revision, out):
    return f"checkpoints.fetch_checkpoint({source!r}, {revision!r}, {str(out)!r})"


def test_a_checkpoint_comes_from_a_pinned_revision_and_then_from_the_cache(hub, home, tmp_path):
    from ffnfold import checkpoints

    pinned = commit(hub, "models", "acme/tiny-gpt2")
    assert ask(fetch("acme/tiny-gpt2", pinned, tmp_path / "out"), home, hub.endpoint) == "done"
    checkpoints.verify_checkpoint(tmp_path / "out")
    assert "transformer.h.0.mlp.c_fc.weight" in checkpoints.load_state(tmp_path / "out")
    assert checkpoints.tokenizer_length(tmp_path / "out") == 257
    assert not any(
        "pytorch_model.bin" in request or "onnx" in request for request in hub.requests if "resolve" in request
    )
    before = len(hub.requests)
    call = f"hub.check_hub_reachable(['acme/tiny-gpt2']); {fetch('acme/tiny-gpt2', pinned, tmp_path / 'again')}"
    assert ask(call, home, "http://127.0.0.1:9", HF_HUB_OFFLINE="1") == "done"
    assert len(hub.requests) == before
    first, again = ((tmp_path / name / "manifest.json").read_text() for name in ("out", "again"))
    assert first == again


TASKS = [
    ("language_modeling", "acme/wikitext", "wikitext-2-raw-v1", {}, [2, 2, 2]),
    ("sentiment", "acme/imdb", None, {"train": 12}, [12, 0, 20]),
    ("summarization", "acme/news", "3.0.0", {"test": 3}, [4, 4, 3]),
]


@pytest.mark.parametrize(("task", "source", "subset", "rows", "counts"), TASKS, ids=[task for task, *_ in TASKS])
def test_a_data_set_comes_from_a_pinned_revision_and_then_from_the_cache(
    hub, home, tmp_path, task, source, subset, rows, counts
):
    from ffnfold import splits

    spec = {"source": source, "subset": subset, "revision": commit(hub, "datasets", source), "rows": rows}
    call = f"datasets.prepare_task({task!r}, {spec!r}, {str(tmp_path / 'out')!r}, 1)"
    assert ask(call, home, hub.endpoint) == "done"
    info = splits.load_info(tmp_path / "out")
    assert [info["splits"][split]["rows"] for split in SPLITS] == counts
    assert info["revision"] == spec["revision"]
    table = splits.read_split(tmp_path / "out", "train")
    if task == "language_modeling":
        assert list(table["text"]) == ["", " = train = \n"]
    if task == "sentiment":
        assert 0 < table["label"].sum() < 12
        assert all((int(i.split("-")[1]) >= 10) == label for i, label in zip(table["id"], table["label"], strict=True))
    before = len(hub.requests)
    assert ask(call, home, "http://127.0.0.1:9", HF_HUB_OFFLINE="1") == "done"
    assert len(hub.requests) == before
    assert splits.load_info(tmp_path / "out") == info


def prepare(source, **spec):
    full = {"source": source} | spec
    return f"datasets.prepare_task('language_modeling', {full!r}, 'never', 1)"


REFUSALS = [
    (fetch("acme/tiny-gpt2", "f" * 40, "never"), ["no such revision", "acme/tiny-gpt2", "f" * 40, "`revision`"]),
    (fetch("acme/nobody", None, "never"), ["no such repository", "acme/nobody", "`source`"]),
    (fetch("acme/gated", None, "never"), ["refuses access", "acme/gated", "hf auth login"]),
    (fetch("acme/pickled", None, "never"), ["not safetensors", "acme/pickled", "pytorch_model.bin", "convert"]),
    (fetch("acme/llama", None, "never"), ["another architecture", "acme/llama", "'llama'", "gpt2"]),
    (fetch("acme/cut", None, "never"), ["truncated", "model.safetensors", "bytes"]),
    (fetch("acme/tampered", None, "never"), ["not the one that the hub announced", "model.safetensors", "sha256"]),
    (prepare("acme/wikitext", revision="f" * 40), ["no such revision", "acme/wikitext", "f" * 40]),
    (prepare("acme/wikitext", subset="nope"), ["no such subset", "acme/wikitext", "wikitext-2-raw-v1", "`subset`"]),
    (prepare("acme/nobody"), ["no such repository", "acme/nobody"]),
    (prepare("acme/gated"), ["refuses access", "acme/gated"]),
    (prepare("acme/imdb", columns={"text": "review"}), ["column is missing", "acme/imdb", "text, label", "'review'"]),
]


@pytest.mark.parametrize(("call", "parts"), REFUSALS, ids=[" ".join(parts[:2]) for _, parts in REFUSALS])
def test_a_refusal_is_one_message(hub, home, tmp_path, call, parts):
    answer = ask(call, tmp_path / "home", hub.endpoint)
    assert all(part in answer for part in parts), answer
    assert "Traceback" not in answer and not Path("never").exists()


def test_a_hub_that_refuses_connections_is_one_message_in_seconds(tmp_path):
    sources = ["openai-community/gpt2", "stanfordnlp/imdb", "not/needed.txt"]
    calls = [f"hub.check_hub_reachable({sources!r})", fetch("acme/tiny-gpt2", None, "never"), prepare("acme/wikitext")]
    for call in calls:
        start = time.monotonic()
        answer = ask(call, tmp_path, "http://127.0.0.1:9")
        assert time.monotonic() - start < 15
        assert answer.count("cannot be reached") == 1 and "http://127.0.0.1:9" in answer
        assert all(word in answer for word in ("`source`", "HF_HUB_OFFLINE", "HF_ENDPOINT")), answer
        if "check_hub" in call:
            assert "openai-community/gpt2, stanfordnlp/imdb" in answer and "not/needed" not in answer


def test_a_hub_that_never_answers_is_given_up_in_time(tmp_path):
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        call = "hub.check_hub_reachable(['acme/tiny-gpt2'], timeout_s=2)"
        answer = ask(call, tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "cannot be reached" in answer and time.monotonic() - start < 10


def test_a_name_look_up_that_hangs_is_given_up_in_time(tmp_path):
    hang = "import socket, time; socket.getaddrinfo = lambda *a, **k: time.sleep(60)"
    start = time.monotonic()
    answer = ask(f"{hang}; hub.check_hub_reachable(['acme/tiny-gpt2'], 2)", tmp_path, "https://hub.example")
    assert "no answer within 2 s" in answer and time.monotonic() - start < 10


def test_an_offline_run_without_the_cache_names_what_is_missing(tmp_path):
    answer = ask("hub.check_hub_reachable(['acme/tiny-gpt2'])", tmp_path, "http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert "not cached: acme/tiny-gpt2" in answer and "fill the cache" in answer


def test_a_study_without_hub_sources_asks_nothing(hub, home):
    before = len(hub.requests)
    assert ask("hub.check_hub_reachable(['embedded', './here', 'data/a.txt'])", home, hub.endpoint) == "done"
    assert len(hub.requests) == before


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("openai-community/gpt2", True),
        ("Salesforce/wikitext", True),
        ("embedded", False),
        ("./base/gpt2", False),
        ("/base/gpt2", False),
        ("a/b/c", False),
        ("data/train.jsonl", False),
        ({"train": "a/b"}, False),
        (None, False),
    ],
)
def test_what_is_a_hub_id(source, expected):
    assert is_hub_id(source) is expected


def test_a_folder_of_that_name_is_local(tmp_path, monkeypatch):
    (tmp_path / "base" / "gpt2").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("base/gpt2")
