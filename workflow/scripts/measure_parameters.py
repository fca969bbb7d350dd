"""Count parameters, non-zero parameters, bytes and FLOPs of a recovered variant."""


def main(job):
    from ffnfold.checkpoints import load_config, load_state
    from ffnfold.measurement import Measurement
    from ffnfold.metrics import parameters

    measurement = Measurement(job, "parameters")
    folder = measurement.checkpoint
    size_bytes = (folder / "model.safetensors").stat().st_size
    values = parameters.measure(load_state(folder), load_config(folder), size_bytes, measurement.settings)
    measurement.write(values, None)


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
