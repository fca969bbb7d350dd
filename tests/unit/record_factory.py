"""Made-up metric records of a small study, for the tests of tables, figures and report."""

from __future__ import annotations

import math

VARIANTS = [
    {"name": "gpt2", "method": "baseline"},
    {"name": "distilgpt2", "method": "distill"},
    {"name": "pruned_104M", "method": "prune"},
    *({"name": f"merged_{n}", "method": "merge"} for n in (2, 4, 6, 8, 10)),
    *({"name": f"compressed_{n}", "method": "compress"} for n in (2, 4, 6, 8, 10)),
]

#: stored parameters, token perplexity before and after recovery, latency in ms, accuracy in %, ROUGE-L
FIGURES = {
    "gpt2": (689_728, 3.17, 3.165, 52.0, 88.1, 0.412),
    "distilgpt2": (389_824, 3.60, 3.41, 27.4, 86.0, 0.371),
    "pruned_104M": (689_728, 19.4, 3.21, 52.3, 87.6, 0.404),
    "merged_2": (689_728, 4.27, 3.180, 52.1, 88.0, 0.410),
    "merged_4": (689_728, 30.6, 3.200, 51.8, 87.2, 0.399),
    "merged_6": (689_728, 88.1, 3.205, 52.4, 87.4, 0.396),
    "merged_8": (689_728, 101.0, 3.211, 52.2, 86.9, 0.392),
    "merged_10": (689_728, 173.2, 3.221, 51.9, 86.8, 0.388),
    "compressed_2": (389_824, 30.8, 3.232, 27.2, 86.4, 0.377),
    "compressed_4": (239_872, 340.5, 4.051, 15.1, 80.2, 0.241),
    "compressed_6": (189_888, 903.1, 4.480, 10.9, 77.5, 0.207),
    "compressed_8": (189_888, 1200.4, 4.520, 10.8, 77.9, 0.204),
    "compressed_10": (189_888, 1640.9, 4.690, 10.9, 77.1, 0.201),
}
BYTES_PER_TOKEN = 2.6


def value(value, unit, half=0.0, n=1, how="exact"):
    """One entry of a record's values, its interval `half` wide on either side."""
    return {"value": value, "unit": unit, "ci_low": value - half, "ci_high": value + half, "n": n, "ci_method": how}


def _values(metric, figures, variant):
    stored, before, after, latency, accuracy, rouge = figures
    if metric == "parameters":
        nonzero = stored * 0.84 if variant == "pruned_104M" else stored
        return {
            "stored_parameters": value(stored, "parameters"),
            "nonzero_parameters": value(int(nonzero), "parameters"),
            "size_bytes": value(4 * stored + 5120, "bytes"),
            "flops_per_token": value(2 * stored + 98_304, "FLOP"),
        }
    if metric == "perplexity":
        values = {}
        for suffix, perplexity in (("", after), ("_before_recovery", before)):
            word, bits = perplexity**1.31, math.log2(perplexity) / BYTES_PER_TOKEN
            values |= {
                f"token_perplexity{suffix}": value(perplexity, "perplexity", 0.012 * perplexity, 214, "bootstrap"),
                f"word_perplexity{suffix}": value(word, "perplexity", 0.016 * word, 214, "bootstrap"),
                f"bits_per_byte{suffix}": value(bits, "bits/byte", 0.011 * bits, 214, "bootstrap"),
            }
        return values
    if metric == "latency":
        ratio, half = (1.0, 0.0) if variant == "gpt2" else (52.0 / latency, 0.03)
        return {
            "latency_ms_median": value(latency, "ms", 0.02 * latency, 30, "order statistics"),
            "latency_ms_p90": value(1.08 * latency, "ms", 0.05 * latency, 30, "order statistics"),
            "latency_ms_memory_bound": value(stored / 1e6, "ms", 0.01, 30, "fastest reading"),
            "generated_tokens": value(32, "tokens", n=30),
            "speedup": value(ratio, "x", half, 30, "paired bootstrap"),
            "generated_tokens_per_s": value(32_000 / latency, "tokens/s", 12.5, 30, "bootstrap"),
        }
    if metric == "sentiment":
        return {"accuracy": value(accuracy, "%", 1.4, 2000, "Wilson")}
    shares = {"rouge1": 1.2, "rouge2": 0.6, "rougeL": 1.0, "rougeLsum": 1.1}
    return {name: value(round(share * rouge, 6), "F1", 0.012, 200, "bootstrap") for name, share in shares.items()}


PROTOCOLS = {
    "parameters": {"count": "deduplicated"},
    "perplexity": {"window": 128, "stride": 64, "weighting": "scored tokens", "recovery": {"steps": 60, "batch": 32}},
    "latency": {"prompt_tokens": 32, "generated_tokens": 32, "warmup": 3, "repeats": 30, "kv_cache": True},
    "sentiment": {"steps": 120, "learning_rate": 5e-4, "max_tokens": 96},
    "summarization": {"prompt": "TL;DR:", "beams": 1, "max_new_tokens": 40},
}
TASKS = {"perplexity": "language_modeling", "sentiment": "sentiment", "summarization": "summarization"}


def record(metric, variant, replicate=0, figures=None):
    """One metric record of a variant of `FIGURES` (or with the figures given)."""
    figures = figures or FIGURES[variant]
    shift = 1 + 0.01 * replicate
    task = TASKS.get(metric)
    figures = (figures[0], *(figure * shift for figure in figures[1:4]), *figures[4:])
    return {
        "schema_version": 1,
        "study": "made_up",
        "variant": variant,
        "replicate": replicate,
        "metric": metric,
        "values": _values(metric, figures, variant),
        "protocol": PROTOCOLS[metric],
        "checkpoint": {"path": f"variants/{variant}/recovered/{replicate}", "sha256": f"{hash_of(variant, replicate)}"},
        "data": {"task": task, "fingerprint": hash_of(task, 0)} if task else None,
        "software": {"ffnfold": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        "device": {"type": "cpu", "name": "a processor", "threads": 1},
        "started_at": f"2026-01-02T03:{replicate:02d}:05Z",
        "duration_s": 4.25,
        "items": None if metric == "parameters" else f"{metric}.parquet",
    }


#: What needs no model: metric, token perplexity or accuracy or ROUGE-L.
FLOORS = {
    "unigram": ("perplexity", 61.0),
    "trigram": ("perplexity", 4.4),
    "majority": ("sentiment", 50.0),
    "tfidf": ("sentiment", 78.5),
    "prompt": ("summarization", 0.31),
    "lead3": ("summarization", 0.435),
}


def floor_records(metric):
    """Records of what needs no language model."""
    found = []
    for name, (of_metric, figure) in FLOORS.items():
        if of_metric == metric:
            made = record(metric, name, 0, (1, figure, figure, 1.0, figure, figure))
            values = {key: v for key, v in made["values"].items() if not key.endswith("_before_recovery")}
            found.append({**made, "values": values, "checkpoint": None})
    return found


def tables(variants=VARIANTS, replicates=(0,), made=None, published=None):
    """Every metric's table, floors and all; `published` defaults to the file of published figures."""
    from pathlib import Path

    from ffnfold.published import read_published
    from ffnfold.tables import METRICS, build_table

    if published is None:
        published = read_published(Path(__file__).parents[2] / "config" / "published.csv")
    made = records(variants, replicates) if made is None else made
    return {metric: build_table(metric, made, published, variants, floors=floor_records(metric)) for metric in METRICS}


def comparisons(variants=VARIANTS):
    """A table of comparisons as the made-up figures would give it: better or worse by the first digits."""
    import pandas as pd
    from ffnfold.comparisons import COLUMNS, HEADLINES

    place = {"perplexity": 2, "latency": 3, "sentiment": 4, "summarization": 5}
    best = {"perplexity": "trigram", "sentiment": "tfidf", "summarization": "lead3"}
    rows = []
    for metric, name in HEADLINES.items():
        less = metric in ("perplexity", "latency")
        for against in ("baseline", "floor"):
            if against == "floor" and metric not in best:
                continue
            reference = "gpt2" if against == "baseline" else best[metric]
            other = FIGURES["gpt2"][place[metric]] if against == "baseline" else FLOORS[reference][1]
            for variant in [v["name"] for v in variants if v["name"] != reference and v["name"] in FIGURES]:
                ratio = FIGURES[variant][place[metric]] / other
                estimate = ratio if less else FIGURES[variant][place[metric]] - other
                gain = (1 - ratio) if less else ratio - 1
                clear = abs(gain) > 0.02
                if against == "baseline":
                    verdict = "better than the baseline" if gain > 0 else "worse than the baseline"
                    verdict = verdict if clear else "indistinguishable from the baseline"
                else:
                    verdict = "beats the floor" if clear and gain > 0 else "does not beat the floor"
                numbers = [estimate, estimate - 0.01, estimate + 0.01]
                scale, unit = ("ratio", "x") if less else ("difference", "points" if metric == "sentiment" else "F1")
                p_values = (0.001, 0.01) if clear else (0.5, 1.0)
                place_of = (metric, name, variant, reference, against, scale)
                rows.append([*place_of, *numbers, unit, 214, 1, "made up", *p_values, verdict])
    return pd.DataFrame(rows, columns=list(COLUMNS))


def questions():
    """Two made-up answers, as of `answers.answer`: one with every kind of number, one that could not be compared."""
    import pandas as pd
    from ffnfold.answers import ANSWER_COLUMNS
    from ffnfold.comparisons import NOT_COMPARED

    pair = ("merged_2", "merged_4", "pair")
    first, second = ("averaging", "Is <b>averaging</b> better?"), ("size", "Does size matter?")
    rows = [
        [*first, "parameters", "stored_parameters", *pair, "ratio", 1.0, 1.0, 1.0, "x", 1, 1, "exact count", 1.0, 1.0],
        [*first, "perplexity", "token_perplexity", *pair, "ratio", 0.9523, 0.9423, 0.9623, "x", 1214, 1, "made up"],
        [*first, "sentiment", "accuracy", *pair, "difference", 1.5, 0.5, 2.5, "points", 2000, 1, "made up", 0.02, 0.04],
        [*second, "latency", "latency_ms_median", *pair, "ratio", *3 * [None], "x", None, None, "none", None, None],
    ]
    rows[1] += [1e-5, 2e-5]
    verdicts = ["as many as merged_4", "better than merged_4", "better than merged_4", NOT_COMPARED]
    table = pd.DataFrame(
        [[*row, words] for row, words in zip(rows, verdicts, strict=True)], columns=list(ANSWER_COLUMNS)
    )
    return table.astype({"n": "Int64", "replicates": "Int64", "estimate": "float64"})


GATE = {
    "name": "non_overlapping",
    "figure": "token_perplexity",
    "expected": 29.94,
    "tolerance": 0.01,
    "found": 31.2,
    "ci": [30.9, 31.5],
    "n": 300,
    "deviation": 0.042,
    "passed": False,
    "source": "a page",
}

CLAIMS = [
    {
        "id": "merged_keeps_parameters",
        "claim": "merged_n keeps all parameters.",
        "published": "124M for gpt2 and merged_n.",
        "reading": "Exactly as many stored parameters.",
        "verdict": "confirmed",
        "reason": "all 5 tests support it",
        "evidence": ["merged_2 / gpt2, stored parameters: 1×; exactly 1: supports."],
    }
]


def hash_of(*parts):
    """A made-up sha256, 64 hexadecimal digits."""
    import hashlib

    return hashlib.sha256(repr(parts).encode()).hexdigest()


def records(variants=VARIANTS, replicates=(0,), metrics=("parameters", *PROTOCOLS)):
    """Records for every variant, replicate and metric."""
    return [
        record(metric, variant["name"], replicate)
        for metric in dict.fromkeys(metrics)
        for variant in variants
        for replicate in replicates
    ]


def dataset_infos():
    """A dataset_info for each of the three tasks, with the bounds the embedded corpus knows."""
    bounds = {
        "language_modeling": {
            "entropy_bits_per_byte": {
                "value": 0.611,
                "unit": "bits/byte",
                "meaning": "Entropy of the test split under the grammar that wrote it: no model can do better.",
            }
        },
        "sentiment": {
            "accuracy_ceiling": {"value": 95.0, "unit": "%", "meaning": "5% of the labels are flipped at random."}
        },
        "summarization": {},
    }
    return [
        {
            "task": task,
            "source": "microworld",
            "revision": None,
            "licence": "Apache-2.0",
            "join": "\n",
            "splits": {
                split: {"rows": rows, "bytes": 100 * rows, "words": 17 * rows, "sha256": hash_of(task, split)}
                for split, rows in (("train", 4000), ("validation", 0), ("test", 500))
            },
            "fingerprint": hash_of(task, 0),
            "bounds": bounds[task],
        }
        for task in bounds
    ]


def study(comparable=False):
    """The study as the report's script gets it."""
    return {
        "name": "made_up",
        "description": "Thirteen made-up variants for the tests.",
        "seed": 20260101,
        "comparable": comparable,
    }
