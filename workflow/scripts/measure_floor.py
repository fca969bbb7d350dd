"""What one metric reaches without a language model."""


def main(job):
    from pathlib import Path

    from ffnfold.checkpoints import load_tokenizer
    from ffnfold.floors import FLOORS, measure_floor
    from ffnfold.measurement import Measurement
    from ffnfold.splits import load_info, read_split

    name = job.wildcards.floor
    floor, measurement = FLOORS[name], Measurement(job, FLOORS[name].metric)
    values, items = measure_floor(
        name,
        load_tokenizer(Path(job.input.base).parent),
        read_split(measurement.data, "train") if floor.trains else None,
        read_split(measurement.data, measurement.settings.get("split", "test")),
        load_info(measurement.data)["join"],
        measurement.settings,
        measurement.statistics,
        measurement.generator,
    )
    measurement.write(values, items, floor=floor.title)


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
