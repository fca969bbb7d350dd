"""Compare every variant with the baseline and the best floor, answer the study's questions, and judge the claims."""


def main(job):
    from ffnfold.claims import read_claims
    from ffnfold.comparisons import write_comparisons
    from ffnfold.evaluation import evaluate
    from ffnfold.files import write_json
    from ffnfold.records import read_items, read_record
    from ffnfold.seeding import seeded_generator

    def measured(paths):
        return [(record, read_items(path, record)) for path in paths for record in [read_record(path)]]

    table, answers, verdicts = evaluate(
        measured(job.input.records),
        measured(job.input.floors),
        job.params.variants,
        job.params.questions,
        read_claims(job.input.claims),
        job.params.statistics,
        seeded_generator(job.params.seed, "comparisons"),
        job.params.comparable,
    )
    write_comparisons(table, job.output.table)
    write_comparisons(answers, job.output.questions)
    write_json(job.output.claims, verdicts)


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
