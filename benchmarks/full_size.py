"""Every method on a random model of GPT-2's full size: exact sizes, seconds and peak memory of the build.

    python benchmarks/full_size.py            # all
    python benchmarks/full_size.py shared_4   # some of them
    python benchmarks/full_size.py --sizes    # without the statistics that take minutes: what needs none of them

Makes a base with random weights (12 blocks, hidden size 768, 50,257 tokens), the statistics of the alignment stage, and
then each variant by `build_variant` in a process of its own with two threads. Stored parameters, those not zero, and
the bytes of the weights file must be what the shapes say, to the last one; a build may take 60 s and 3 GiB, the
matching of all 66 pairs of blocks 120 s. Ends with status 1 where one of these does not hold. Builds that train
(distillation, the local fit) take one step here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peak_memory import ENTRIES, write_tokenizer

LAYERS, HIDDEN, POSITIONS = 12, 768, 1024
NEURONS = 4 * HIDDEN
FFN = {
    "mlp.c_fc.weight": (HIDDEN, NEURONS),
    "mlp.c_fc.bias": (NEURONS,),
    "mlp.c_proj.weight": (NEURONS, HIDDEN),
    "mlp.c_proj.bias": (HIDDEN,),
}
REST = {
    **{f"ln_{i}.{part}": (HIDDEN,) for i in (1, 2) for part in ("weight", "bias")},
    "attn.c_attn.weight": (HIDDEN, 3 * HIDDEN),
    "attn.c_attn.bias": (3 * HIDDEN,),
    "attn.c_proj.weight": (HIDDEN, HIDDEN),
    "attn.c_proj.bias": (HIDDEN,),
}
OUTSIDE = {
    "transformer.wte.weight": (ENTRIES, HIDDEN),
    "transformer.wpe.weight": (POSITIONS, HIDDEN),
    "transformer.ln_f.weight": (HIDDEN,),
    "transformer.ln_f.bias": (HIDDEN,),
}
GPT2 = 124_439_808
# Derived by hand: 7,087,872 parameters a block, 4,722,432 of them in its FFN.
KNOWN = {"gpt2": GPT2, "distilgpt2": 81_912_576, "compressed_2": 81_912_576, "compressed_4": 60_648_960}
KNOWN |= {f"compressed_{n}": 53_561_088 for n in (6, 8, 10)} | {f"merged_{n}": GPT2 for n in (2, 4, 6, 8, 10)}
KNOWN |= {"shared_2": 96_105_216, "shared_4": 81_937_920} | {f"shared_{n}": 77_215_488 for n in (6, 8, 10)}
LIMIT_S, LIMIT_GIB, ALIGNMENT_LIMIT_S = 60, 3.0, 120
RANK = 32
KEEP = {"embedding": 104_694_536, "blocks": 81_912_576, "all": 81_912_576}
ONE_STEP = {"steps": 1, "batch_size": 1, "sequence_length": 64}


def variants() -> dict[str, dict]:
    """Name -> its line in a study."""
    lines = {
        "gpt2": {"method": "baseline"},
        "distilgpt2": {"method": "distill", "layers": [0, 2, 4, 7, 9, 11], "training": ONE_STEP},
        "pruned_104M": {"method": "prune", "scope": "embedding", "keep": KEEP["embedding"]},
        "pruned_blocks": {"method": "prune", "scope": "blocks", "keep": KEEP["blocks"]},
        "pruned_all": {"method": "prune", "scope": "all", "keep": KEEP["all"]},
        "pruned_wanda": {"method": "prune", "scope": "blocks", "score": "wanda", "keep": KEEP["blocks"]},
    }
    for n in (2, 4, 6, 8, 10):
        lines[f"merged_{n}"] = {"method": "merge", "n": n}
        lines[f"shared_{n}"] = {"method": "share", "n": n}
        lines[f"compressed_{n}"] = {"method": "compress", "n": n}
    lines |= {
        "merged_4_anchor": {"method": "merge", "n": 4, "write": "anchor"},
        "merged_4_unaligned": {"method": "merge", "n": 4, "align": "none"},
        "shared_4_unaligned": {"method": "share", "n": 4, "align": "none"},
        "shared_4_copied": {"method": "share", "n": 4, "average": "anchor"},
        f"shared_4_rank_{RANK}": {"method": "share", "n": 4, "rank": RANK},
        "shared_4_weights": {"method": "share", "n": 4, "align": "weights"},
        "shared_4_regression": {"method": "share", "n": 4, "average": "regression"},
        "shared_10_regression": {"method": "share", "n": 10, "average": "regression"},
        "shared_4_similarity": {"method": "share", "n": 4, "groups": "similarity"},
        "shared_4_medoid": {"method": "share", "n": 4, "reference": "medoid"},
        "shared_4_window": {"method": "share", "n": 4, "groups": "window"},
        "shared_4_fitted": {"method": "share", "n": 4, "fit": ONE_STEP},
        "compressed_4_window": {"method": "compress", "n": 4, "groups": "window"},
        "dropped_4": {"method": "drop", "n": 4},
        "dropped_4_influence": {"method": "drop", "n": 4, "by": "influence"},
        "bypassed_4": {"method": "bypass", "n": 4},
    }
    return lines


# ------------------------------------------------------------------------------------------------ derived values


def shapes_of(options: dict) -> dict[str, tuple[int, ...]]:
    """Every stored tensor's shape, from the method's definition alone."""
    blocks, holders, rank = LAYERS, None, options.get("rank", 0)
    n = options.get("n", 1)
    groups = math.ceil(LAYERS / n) if options.get("groups") != "window" else LAYERS - n + 1
    if options["method"] in ("compress", "drop"):
        blocks = groups
    if options["method"] == "distill":
        blocks = len(options["layers"])
    if options["method"] in ("share", "bypass"):
        # Where they are stored is the build's choice, how many there are is not.
        holders = options.get("holders") or list(range(0, LAYERS, n))
        assert len(holders) == groups, f"{len(holders)} FFNs are stored, {groups} are due"
    shapes = dict(OUTSIDE)
    for layer in range(blocks):
        shapes |= {f"transformer.h.{layer}.{name}": shape for name, shape in REST.items()}
        if holders is None or layer in holders:
            shapes |= {f"transformer.h.{layer}.{name}": shape for name, shape in FFN.items()}
        if rank:
            products = {"in_down": (HIDDEN, rank), "in_up": (rank, NEURONS)}
            products |= {"out_down": (NEURONS, rank), "out_up": (rank, HIDDEN)}
            shapes |= {f"transformer.h.{layer}.mlp.delta_{name}": shape for name, shape in products.items()}
    return shapes


def file_size(shapes: dict[str, tuple[int, ...]]) -> int:
    """Bytes of a safetensors file of float32 tensors: 8, the header padded to a multiple of 8, the numbers.

    Source: the safetensors format, https://github.com/huggingface/safetensors#format.
    """
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(shapes):
        end = offset + 4 * math.prod(shapes[name])
        header[name] = {"dtype": "F32", "shape": list(shapes[name]), "data_offsets": [offset, end]}
        offset = end
    length = len(json.dumps(header, separators=(",", ":")))
    return 8 + -(-length // 8) * 8 + offset


# ------------------------------------------------------------------------------------------------ making and building


def make_base(folder: Path) -> None:
    """A base with random weights, none of which is 0 nor any average of them, so that counts of non-zeros are exact."""
    import torch
    from ffnfold.checkpoints import save_checkpoint

    write_tokenizer(folder / "tokenizer")
    generator = torch.Generator().manual_seed(0)
    shapes = shapes_of({"method": "baseline"})
    state = {}
    for name in sorted(shapes):
        # Multiples of 2^-20 that leave 1 when divided by 16 of them: no sum of up to 15 is 0, so no average is.
        values = torch.randn(shapes[name], generator=generator).mul_(0.05 * 2**16).round_()
        state[name] = values.mul_(16).add_(1).div_(2**20)
        if (name.startswith("transformer.h.") and ".ln_" in name) or ".ln_f." in name:
            state[name] = state[name] + float(name.endswith("weight"))
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": LAYERS, "n_embd": HIDDEN}
    config |= {"n_head": 12, "n_positions": POSITIONS, "vocab_size": ENTRIES, "dtype": "float32"}
    save_checkpoint(folder / "base", state, config, folder / "tokenizer")


def make_data(folder: Path) -> None:
    """The embedded corpus, for the statistics and the builds that read text."""
    from ffnfold.datasets import prepare_task

    spec = {"source": "embedded", "rows": {"train": 400, "validation": 40, "test": 1}, "join": "\n\n"}
    prepare_task("language_modeling", {**spec, "licence": "none"}, folder / "language_modeling", 1)


def step(name: str, folder: Path) -> None:
    """One stage, in this process."""
    import torch

    torch.set_num_threads(2)
    if name == "base":
        make_base(folder)
        make_data(folder)
    elif name in ("alignment", "weights", "moments"):
        _statistics(name, folder)
    else:
        _build(name, folder)


def _statistics(name: str, folder: Path) -> None:
    import numpy as np
    from ffnfold.alignment import align_by_weights
    from ffnfold.architecture import family_of
    from ffnfold.calibration import align_activations, save_alignment
    from ffnfold.checkpoints import load_config, load_model, load_state, load_tokenizer
    from ffnfold.moments import collect_moments, save_moments
    from ffnfold.splits import load_info, read_split

    base, data = folder / "base", folder / "language_modeling"
    settings = {"tokens": 4096, "sequence_length": 512, "count_padding": False, "max_items": None}
    arguments = (list(read_split(data, "train")["text"]), load_info(data)["join"], settings)
    if name == "moments":
        model, tokenizer = load_model(base), load_tokenizer(base)
        found = collect_moments(model, tokenizer, *arguments, np.random.default_rng(0), "cpu", 2)
        save_moments(found, folder / "moments.safetensors")
        return
    if name == "weights":
        config = load_config(base)
        found = align_by_weights(load_state(base), family_of(config), LAYERS, threads=2)
    else:
        model, tokenizer = load_model(base), load_tokenizer(base)
        found = align_activations(model, tokenizer, *arguments, np.random.default_rng(0), "cpu", 2)
    save_alignment(*found, folder / f"{name}.safetensors", folder / f"{name}.csv")


def _build(name: str, folder: Path) -> None:
    from ffnfold.building import build_variant
    from ffnfold.methods import needs_of

    options = filled(variants()[name])
    needs, info = needs_of(options), str(folder / "language_modeling/dataset_info.json")
    files = {
        "alignment": ("alignment", str(folder / "alignment.safetensors")),
        "weight_alignment": ("alignment", str(folder / "weights.safetensors")),
        "moments": ("moments", str(folder / "moments.safetensors")),
        "validation": ("validation", info),
        "data": ("data", [info]),
    }
    build_variant(
        base=folder / "base",
        options=options,
        directory=folder / name,
        training={"prompt": "", "seed": 1, "device": "cpu"},
        threads=2,
        **{key: path for need, (key, path) in files.items() if need in needs},
    )


def filled(options: dict) -> dict:
    """A line with the schema's defaults."""
    from ffnfold.settings import fill_defaults, load_schema

    schema = load_schema("study")
    return fill_defaults(json.loads(json.dumps(options)), schema["$defs"][options["method"]], schema)


# ------------------------------------------------------------------------------------------------ comparing


def run_apart(name: str, folder: Path) -> tuple[float, float]:
    """Seconds and peak GiB of a stage in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        command = [sys.executable, __file__, "--step", name, "--folder", str(folder)]
        child = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if child.returncode:
        sys.exit(f"{name} failed:\n{text[-3000:]}")
    return time.monotonic() - started, usage.ru_maxrss / 2**20


def compare(name: str, folder: Path) -> list[str]:
    """What is wrong with a built variant's sizes; [] where all are exact. Prints its row."""
    import torch
    from ffnfold.checkpoints import load_config, load_state

    options = variants()[name]
    groups = load_config(folder / name).get("ffn_groups")
    shapes = shapes_of({**options, "holders": [group[0] for group in groups]} if groups else options)
    state = load_state(folder / name)
    stored = sum(tensor.numel() for tensor in state.values())
    nonzero = sum(int(torch.count_nonzero(tensor)) for tensor in state.values())
    size = (folder / name / "model.safetensors").stat().st_size
    expected = sum(map(math.prod, shapes.values()))
    assert KNOWN.get(name, expected) == expected, name
    wanted = {"stored": expected, "nonzero": options.get("keep", expected), "bytes": file_size(shapes)}
    found = {"stored": stored, "nonzero": nonzero, "bytes": size}
    print(f"{name:22} {stored:>12,} {nonzero:>12,} {size:>12,}", end=" ")
    return [f"{name}: {key} {found[key]:,}, derived {wanted[key]:,}" for key in found if found[key] != wanted[key]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("names", nargs="*", metavar="VARIANT")
    parser.add_argument("--sizes", action="store_true", help="only the variants that need no statistics")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step(options.step, options.folder)
        return
    unknown = sorted(set(options.names) - set(variants()))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(variants())}")
    sys.exit(run_all(options.names or list(variants()), options.sizes))


def run_all(names: list[str], sizes_only: bool) -> int:
    """Print the table; 1 where a size is not exact or a limit is passed."""
    from ffnfold.methods import needs_of

    assert sum(map(math.prod, shapes_of({"method": "baseline"}).values())) == GPT2
    needs = {name: needs_of(filled(variants()[name])) for name in names}
    if sizes_only:
        names = [name for name in names if not needs[name]]
    wrong = []
    with tempfile.TemporaryDirectory(prefix="ffnfold-full-size-") as scratch:
        folder = Path(scratch)
        run_apart("base", folder)
        for stage, need in (("alignment", "alignment"), ("weights", "weight_alignment"), ("moments", "moments")):
            if any(need in needs[name] for name in names):
                seconds, gib = run_apart(stage, folder)
                print(f"{stage}: {seconds:.1f} s, {gib:.2f} GiB", flush=True)
                if stage != "moments" and seconds > ALIGNMENT_LIMIT_S:
                    wrong.append(f"{stage}: {seconds:.0f} s, limit {ALIGNMENT_LIMIT_S} s")
        print(f"{'variant':22} {'stored':>12} {'not zero':>12} {'bytes':>12} {'s':>6} {'GiB':>5}")
        for name in names:
            seconds, gib = run_apart(name, folder)
            wrong += compare(name, folder)
            print(f"{seconds:6.1f} {gib:5.2f}", flush=True)
            if seconds > LIMIT_S or gib > LIMIT_GIB:
                wrong.append(f"{name}: {seconds:.0f} s and {gib:.2f} GiB, limits {LIMIT_S} s and {LIMIT_GIB} GiB")
            for path in (folder / name).iterdir():
                path.unlink()
    print("\n".join(wrong) if wrong else f"all {len(names)} exact and within limits")
    return int(bool(wrong))


if __name__ == "__main__":
    main()
