"""Report: all records to results/{study}/tables/*.csv, figures/*.svg, report/index.html and provenance.json."""


rule tabulate:
    """One table of a metric: our figures with their intervals, the published ones beside them."""
    input:
        records=records_of,
        published=PUBLISHED,
        script=script_of("tabulate"),
        library=library_of("tabulate"),
    output:
        table=report(
            "results/{study}/tables/{metric}.csv",
            caption="../report/captions/table.rst",
            category="Tables",
            labels={"metric": "{metric}"},
        ),
    params:
        variants=VARIANT_ROWS,
    log:
        "results/{study}/logs/tabulate/{metric}.log",
    benchmark:
        "results/{study}/benchmarks/tabulate/{metric}.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    script:
        "../workflow/scripts/tabulate.py"


rule plot_figure:
    """One figure from the tables."""
    input:
        tables=expand("results/{{study}}/tables/{metric}.csv", metric=METRICS),
        dataset_infos=infos_of(TASKS),
        script=script_of("plot_figure"),
        library=library_of("plot_figure"),
    output:
        figure=report(
            "results/{study}/figures/{figure}.svg",
            caption="../report/captions/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "results/{study}/logs/plot_figure/{figure}.log",
    benchmark:
        "results/{study}/benchmarks/plot_figure/{figure}.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    script:
        "../workflow/scripts/plot_figure.py"


rule render_report:
    """The report as one page."""
    input:
        tables=expand("results/{{study}}/tables/{metric}.csv", metric=METRICS),
        figures=expand("results/{{study}}/figures/{figure}.svg", figure=FIGURES),
        records=[target(f"metrics/{v}/{r}/{m}.json") for m in METRICS for v in VARIANTS for r in REPLICATES],
        published=PUBLISHED,
        dataset_infos=infos_of(TASKS),
        templates=report_templates(),
        script=script_of("render_report"),
        library=library_of("render_report"),
    output:
        report=report(
            "results/{study}/report/index.html",
            caption="../report/captions/report.rst",
            category="Report",
            labels={"page": "The whole study"},
        ),
        provenance=report(
            "results/{study}/provenance.json",
            caption="../report/captions/provenance.rst",
            category="Report",
            labels={"page": "Provenance"},
        ),
    params:
        study=STUDY_FACTS,
    log:
        "results/{study}/logs/render_report/report.log",
    benchmark:
        "results/{study}/benchmarks/render_report/report.tsv"
    conda:
        "../envs/ffnfold.yaml"
    threads: 1
    script:
        "../workflow/scripts/render_report.py"
