"""Match the FFN neurons of all pairs of blocks by their weights."""


def main(job):
    from pathlib import Path

    from ffnfold.alignment import align_by_weights
    from ffnfold.architecture import family_of, layer_count
    from ffnfold.calibration import save_alignment
    from ffnfold.checkpoints import load_config, load_state, verify_checkpoint

    base = Path(job.input.base).parent
    verify_checkpoint(base)
    config = load_config(base)
    permutations, rows = align_by_weights(load_state(base), family_of(config), layer_count(config), job.threads)
    save_alignment(permutations, rows, job.output.permutations, job.output.similarity)


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
