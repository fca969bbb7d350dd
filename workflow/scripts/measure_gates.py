"""Compare the dense base with the values that it is known to have."""


def main(job):
    from pathlib import Path

    from ffnfold.architecture import require_positions
    from ffnfold.checkpoints import load_config, load_model, load_tokenizer, verify_checkpoint
    from ffnfold.device import resolve_device
    from ffnfold.files import write_json
    from ffnfold.gates import measure_gate, require
    from ffnfold.seeding import seeded_generator
    from ffnfold.splits import load_info, read_split

    if not job.params.known:
        write_json(job.output.gates, [])
        return
    base, data = Path(job.input.base).parent, Path(job.input.data).parent
    verify_checkpoint(base)
    rows, join = list(read_split(data, "test")["text"]), load_info(data)["join"]
    model, tokenizer, found = load_model(base), load_tokenizer(base), []
    for gate in job.params.known:
        require_positions(load_config(base), gate["window"], f"gates.known.{gate['name']}.window")
        found.append(
            measure_gate(
                model,
                tokenizer,
                rows,
                join,
                gate,
                job.params.batch_size,
                job.params.statistics,
                seeded_generator(job.params.seed, "gate", gate["name"]),
                resolve_device(job.params.device),
            )
        )
    if job.params.enforce:
        require(found)
    write_json(job.output.gates, found)


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
