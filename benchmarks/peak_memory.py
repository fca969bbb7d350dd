"""Peak memory of every rule at GPT-2's full size, for the requests in slurm/config.yaml.

    python benchmarks/peak_memory.py

Runs a study of three variants with random weights (12 blocks, hidden size 768, 50,257 tokens) and budgets of a step on
the CPU, each job in a process of its own, and prints the largest resident size that Snakemake saw for each rule. On a
GPU the activations and logits lie in the GPU's memory instead.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
ENTRIES = 50257
ONE_STEP = {"steps": 1, "batch_size": 1, "sequence_length": 512}


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer with GPT-2's number of entries, most of which no text uses."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {entry: i for i, entry in enumerate([*letters, *(f"unused{i}" for i in range(ENTRIES - 257))])}
    end = {"id": ENTRIES - 1, "content": "<|endoftext|>", "special": True}
    end |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": {**vocabulary, "<|endoftext|>": ENTRIES - 1}, "merges": []}
    content = {"version": "1.0", "added_tokens": [end], "pre_tokenizer": level, "decoder": level, "model": model}
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(content))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))


def study(tokenizer: Path) -> dict:
    """Full size, shortest budgets."""
    embedded = {"source": "embedded", "rows": {"train": 200, "validation": 2, "test": 12}}
    return {
        "description": "Peak memory at full size.",
        "device": "cpu",
        "base": {
            "architecture": {"layers": 12, "hidden_size": 768, "heads": 12, "positions": 1024},
            "tokenizer": {"source": str(tokenizer)},
            "training": ONE_STEP,
        },
        "data": dict.fromkeys(("language_modeling", "sentiment", "summarization"), embedded),
        "alignment": {"tokens": 4096, "sequence_length": 512},
        "recovery": {"training": ONE_STEP},
        "metrics": {
            "perplexity": {"window": 1024, "stride": 512, "batch_size": 1},
            "latency": {"prompt_tokens": 16, "generated_tokens": 8, "warmup": 1, "repeats": 5},
            "sentiment": {"max_length": 256, "eval_batch_size": 8, "training": ONE_STEP},
            "summarization": {"article_tokens": 512, "generated_tokens": 8, "batch_size": 4},
        },
        "variants": {
            "gpt2": {"method": "baseline"},
            "merged_10": {"method": "merge", "n": 10},
            "pruned": {"method": "prune", "scope": "embedding", "keep": 104694536},
        },
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tokenizer(folder / "tokenizer")
        path = folder / "peak.yaml"
        path.write_text(yaml.safe_dump(study(folder / "tokenizer"), sort_keys=False))
        command = [Path(sys.executable).with_name("snakemake"), "-s", ROOT / "Snakefile", "--directory", folder, "all"]
        command += ["--cores", "2", "--config", f"study={path}"]
        environment = {**os.environ, "FFNFOLD_PRELOAD": "off"}
        done = subprocess.run([str(p) for p in command], env=environment, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        print(f"{'rule':24} {'peak MiB':>9} {'longest s':>10}")
        for rule in sorted((folder / "results/peak/benchmarks").iterdir()):
            rows = [next(csv.DictReader(file.open(), delimiter="\t")) for file in rule.glob("*.tsv")]
            memory = [float(row["max_rss"]) for row in rows if row["max_rss"] not in ("NA", "-")]
            seconds = max(float(row["s"]) for row in rows)
            print(f"{rule.name:24} {max(memory, default=float('nan')):9.0f} {seconds:10.1f}")


if __name__ == "__main__":
    main()
