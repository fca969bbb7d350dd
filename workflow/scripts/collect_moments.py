"""Gather second moments of the inputs of the blocks' matrices, and the blocks' influence, on the alignment's text."""


def main(job):
    from pathlib import Path

    from ffnfold.checkpoints import load_model, load_tokenizer, verify_checkpoint
    from ffnfold.moments import collect_moments, save_moments
    from ffnfold.seeding import seeded_generator
    from ffnfold.splits import load_info, read_split

    base, data = Path(job.input.base).parent, Path(job.input.data).parent
    split = "test" if job.params.settings["calibrate_on_test"] else "train"
    verify_checkpoint(base)
    moments = collect_moments(
        load_model(base),
        load_tokenizer(base),
        list(read_split(data, split)["text"]),
        load_info(data)["join"],
        job.params.settings,
        seeded_generator(job.params.seed, "alignment"),
        job.params.device,
        job.threads,
    )
    save_moments(moments, job.output.moments)


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
