"""Match the FFN neurons of all pairs of blocks by the correlation of their pre-activations on a text."""


def main(job):
    from pathlib import Path

    from ffnfold.calibration import align_activations, save_alignment
    from ffnfold.checkpoints import load_model, load_tokenizer, verify_checkpoint
    from ffnfold.seeding import seeded_generator
    from ffnfold.splits import load_info, read_split

    base, data = Path(job.input.base).parent, Path(job.input.data).parent
    split = "test" if job.params.settings["calibrate_on_test"] else "train"
    verify_checkpoint(base)
    permutations, rows = align_activations(
        load_model(base),
        load_tokenizer(base),
        list(read_split(data, split)["text"]),
        load_info(data)["join"],
        job.params.settings,
        seeded_generator(job.params.seed, "alignment"),
        job.params.device,
        job.threads,
    )
    save_alignment(permutations, rows, job.output.permutations, job.output.similarity)


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
