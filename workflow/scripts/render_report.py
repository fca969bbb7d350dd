"""Render the study's report and write down where its figures come from."""


def main(job):
    import os
    from pathlib import Path

    from ffnfold.answers import read_answers
    from ffnfold.comparisons import read_comparisons
    from ffnfold.files import read_json, write_atomic, write_json
    from ffnfold.pages import render
    from ffnfold.provenance import collect_provenance
    from ffnfold.published import read_published
    from ffnfold.records import read_record
    from ffnfold.report import build_context
    from ffnfold.tables import read_table

    study, here = dict(job.params.study), Path(job.output.report).parent
    records = [read_record(path) for path in job.input.records]
    infos = [read_json(path) for path in job.input.dataset_infos]
    linked = [*job.input.tables, job.input.comparisons, job.input.questions, job.output.provenance]
    context = build_context(
        study=study,
        records=records,
        tables={Path(path).stem: read_table(path) for path in job.input.tables},
        figures={Path(path).stem: Path(path).read_bytes() for path in job.input.figures},
        published_figures=read_published(job.input.published),
        dataset_infos=infos,
        links={Path(path).name: Path(os.path.relpath(path, here)).as_posix() for path in linked},
        comparisons=read_comparisons(job.input.comparisons),
        questions=read_answers(job.input.questions),
        claims=read_json(job.input.claims),
        gates=read_json(job.input.gates) or None,
        audit=job.params.audit or None,
    )
    template = next(Path(path) for path in job.input.templates if path.endswith("index.html.j2"))
    page = render(template.parent, context)
    sources = [*linked[:-1], *job.input.figures, job.input.claims, job.input.published]
    records += [read_record(path) for path in job.input.floors]
    facts = collect_provenance(study, records, infos, {Path(path).name: Path(path).read_bytes() for path in sources})
    write_json(job.output.provenance, facts)
    write_atomic(job.output.report, page.encode())


if "snakemake" in globals():
    from ffnfold.jobs import run

    run(snakemake, main)  # noqa: F821
