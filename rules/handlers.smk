"""What happens at a run's start and end: locks, warm interpreters, words on the console, the page of an incomplete study."""


def unfinished():
    """What this run owed and did not make.

    Returns:
        Every figure of a variant: variant, replicate, metric, reason. Every failed job that no such figure waits for: name,
        reason.
    """
    failed = {job for entry in workflow.scheduler.failed for job in (entry if entry.is_group() else [entry])}
    cells, blamed = [], set()
    for job in workflow.dag.needrun_jobs():
        metric = job.rule.name.removeprefix("measure_")
        if metric in METRICS:
            causes = [j for j in workflow.dag.bfs(workflow.dag.dependencies, job) if j in failed]
            blamed.update(causes)
            reason = failure_reason([j.log[0] for j in causes])
            cells.append([job.wildcards.variant, int(job.wildcards.replicate), metric, reason])
    others = sorted(failed - blamed, key=lambda job: job.log[0])
    return cells, [[" ".join([job.rule.name, *job.wildcards]), failure_reason([job.log[0]])] for job in others]


def finished_files(paths):
    """Those of some files that are there and that this run does not owe."""
    owed = {str(path) for job in workflow.dag.needrun_jobs() for path in job.output}
    return [path for path in paths if path not in owed and Path(path).is_file()]


def say_gates():
    """Put what the base's check found on the console, a failed one in red."""
    results = json.loads(Path(GATES).read_text(encoding="utf-8")) if Path(GATES).is_file() else []
    if results:
        print(console(results, sys.stderr), file=sys.stderr)


def say_full_disk(logs):
    """Say what to do where Snakemake's own small files met the full disk before a job did."""
    full = os.strerror(errno.ENOSPC)
    with contextlib.suppress(OSError):
        texts = [Path(log).read_text(encoding="utf-8", errors="replace") for log in logs]
        if any(full in text for text in texts):
            print(f"\nffnfold: {explained(OSError(errno.ENOSPC, full, target('')))}\n", file=sys.stderr)


onstart:
    # Raised, not ended here: Snakemake holds its lock by now and gives it back.
    if RUN.refused:
        raise WorkflowError(f"ffnfold: {RUN.refused}")
    runlock.begin("local" if workflow.local_exec else workflow.executor_plugin.name, RUN)
    try:
        if STUDY["device"] == "cuda" and not workflow.non_local_exec:
            resolve_device("cuda")
        check_hub_reachable(hub_sources())
    except InputError as error:
        runlock.end()
        raise WorkflowError(f"ffnfold: {error}")
    if workflow.local_exec:
        preload.start()


onsuccess:
    runlock.end()
    runmetadata.keep()
    say_gates()


onerror:
    runlock.end()
    with contextlib.suppress(OSError):  # a full disk: the notes are for other clones alone
        runmetadata.keep()
    say_gates()
    say_full_disk([log] if isinstance(log, str) else log)  # Snakemake hands over one log or several
    # Jobs have failed; what the others have made is shown all the same, where the page was asked for. A process of its own
    # does it: it draws.
    cells, others = unfinished()
    facts = {
        "results": target(""),
        "study": STUDY_FACTS,
        "variants": VARIANT_ROWS,
        "replicates": [int(r) for r in REPLICATES],
        "unfinished": cells,
        "others": others,
        "floors": finished_files(target(f"floors/{name}.json") for name in FLOORS),
        "gates": finished_files([GATES]),
        "published": PUBLISHED,
        "templates": str(ROOT / "report" / "templates"),
    }
    if any(job.rule.name == "render_report" for job in workflow.dag.needrun_jobs()):
        subprocess.run([sys.executable, "-m", "ffnfold.incomplete"], input=json.dumps(facts), text=True)
