"""The study: loaded and checked before any job; its variants, paths and settings as functions of wildcards."""

STUDY = checked(load_study, config, ROOT / "config" / "studies")
NAME, VARIANTS = STUDY["name"], STUDY["variants"]
REPLICATES = [str(i) for i in range(STUDY["replicates"])]
BASELINE = next(name for name, options in VARIANTS.items() if options["method"] == "baseline")
STUDY_FACTS = {key: STUDY[key] for key in ("name", "description", "comparable", "seed", "replicates")}
VARIANT_ROWS = [{"name": name, "method": options["method"]} for name, options in VARIANTS.items()]
PUBLISHED = relative(ROOT / "config" / "published.csv")
# Only where jobs run here, which is where Snakemake was given no number of cluster jobs.
HERE = workflow.is_main_process and workflow.resource_settings.nodes is None
LOCAL_GPUS = len(usable_gpus()) if STUDY["device"] != "cpu" and HERE else 0
if LOCAL_GPUS and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", LOCAL_GPUS)
PROMPT = STUDY["metrics"]["summarization"]["prompt"]


wildcard_constraints:
    study=re.escape(NAME),
    variant="|".join(map(re.escape, VARIANTS)),
    metric="|".join(METRICS),
    replicate="|".join(REPLICATES),
    task="|".join(TASKS),
    figure="|".join(FIGURES),


def target(path):
    """A file of this study's results."""
    return f"results/{NAME}/{path}"


def hub_sources():
    """Hub ids that this run still has to fetch."""
    wanted = {target("base/manifest.json"): STUDY["base"]["source"] or STUDY["base"]["tokenizer"]["source"]}
    wanted.update({target(f"data/{t}/dataset_info.json"): STUDY["data"][t]["source"] for t in TASKS})
    wanted.update({target(f"variants/{v}/built/manifest.json"): o.get("source") for v, o in VARIANTS.items()})
    return sorted({s for path, s in wanted.items() if is_hub_id(s) and not Path(path).is_file()})


def preflight():
    """What can be known before any job: local data, local checkpoints, and whether the variants fit the base."""
    for task in TASKS:
        if is_local(STUDY["data"][task]["source"]):
            check_local_files(task, STUDY["data"][task])
    for source in [STUDY["base"]["source"], *(o.get("source") for o in VARIANTS.values())]:
        if source and not is_hub_id(source):
            inspect_local(source)
    source, tokenizer = STUDY["base"]["source"], STUDY["base"]["tokenizer"]["source"]
    if source is None:
        if tokenizer and not is_hub_id(tokenizer):
            tokenizer_length(tokenizer)
        return
    known = Path(target("base"))
    if not is_hub_id(source):
        check_against_base(STUDY, load_config(source), NAME)
    elif (known / "manifest.json").is_file():
        check_against_base(STUDY, load_config(known), NAME)


def is_local(source):
    """Whether a task's source is files on this machine: neither the embedded corpus nor a hub id."""
    return source != "embedded" and not is_hub_id(source)


def wants_gpu(wildcards):
    """1 for a job that runs a model on this machine's GPUs; on a cluster the profile asks for them."""
    return int(LOCAL_GPUS > 0)


def build_wants_gpu(wildcards):
    """As `wants_gpu`, for the methods that train."""
    return wants_gpu(wildcards) if "data" in method_of(wildcards).needs else 0


def local_data(wildcards):
    """The local files of a task, [] for the hub and the embedded corpus."""
    source = STUDY["data"][wildcards.task]["source"]
    return [str(path) for paths in local_files(source).values() for path in paths] if is_local(source) else []


def local_data_contents(wildcards):
    """What `contents` says of a task's local files."""
    return contents(local_data(wildcards))


def infos_of(tasks):
    """dataset_info.json of some tasks: each holds its data's fingerprints, so it stands for the data."""
    return [target(f"data/{task}/dataset_info.json") for task in tasks]


def baseline_manifest(wildcards):
    """The recovered baseline of the same replicate."""
    return target(f"variants/{BASELINE}/recovered/{wildcards.replicate}/manifest.json")


def records_of(wildcards):
    """All records of one metric."""
    return [target(f"metrics/{v}/{r}/{wildcards.metric}.json") for v in VARIANTS for r in REPLICATES]


def data_library(wildcards):
    """The embedded corpus is an input only where it is the source."""
    modules = library_of("prepare_data")
    embedded = STUDY["data"][wildcards.task]["source"] == "embedded"
    return [m for m in modules if embedded or "microworld" not in m]


def method_of(wildcards):
    """The registry entry of a variant's method."""
    return REGISTRY[VARIANTS[wildcards.variant]["method"]]


def build_library(wildcards):
    """The script's modules and those of the variant's own method, so that another method's change reruns nothing."""
    method = method_of(wildcards)
    unused = () if "data" in method.needs else ("distillation.py", "training_data.py")
    unused += () if "alignment" in method.needs else ("calibration.py",)
    return library_of("build_variant", f"methods/{method.module}.py", without=unused)


def alignment_of(wildcards):
    """The permutations, for methods that average neurons."""
    needs = "alignment" in method_of(wildcards).needs
    return {"alignment": target("alignment/permutations.safetensors")} if needs else {}


def training_data_of(wildcards):
    """The training text, for methods that train."""
    return {"data": infos_of(STUDY["recovery"]["tasks"])} if "data" in method_of(wildcards).needs else {}


def source_files(wildcards):
    """The files of a variant that is a local checkpoint."""
    return checkpoint_files(VARIANTS[wildcards.variant].get("source"))


def source_contents(wildcards):
    """What `contents` says of these files."""
    return contents(source_files(wildcards))


def training_settings(wildcards):
    """What a method that trains needs beside its own line; nothing for the others, so that nothing else rebuilds them."""
    if "data" not in method_of(wildcards).needs:
        return {}
    return {"prompt": prompt_for(STUDY["recovery"]["tasks"]), "seed": STUDY["seed"], "device": STUDY["device"]}


def prompt_for(tasks):
    """The summarisation prompt, where a training reads articles."""
    return PROMPT if "summarization" in tasks else ""


def task_spec(wildcards):
    """A task's line in the study."""
    return STUDY["data"][wildcards.task]


def variant_options(wildcards):
    """A variant's line in the study."""
    return VARIANTS[wildcards.variant]


def unfinished_figures():
    """Every figure that this run owed and did not make: variant, replicate, metric, reason."""
    failed = {job for entry in workflow.scheduler.failed for job in (entry if entry.is_group() else [entry])}
    cells = []
    for job in workflow.dag.needrun_jobs():
        if job.rule.name.startswith("measure_"):
            logs = [j.log[0] for j in workflow.dag.bfs(workflow.dag.dependencies, job) if j in failed]
            reason = failure_reason(logs)
            metric = job.rule.name.removeprefix("measure_")
            cells.append([job.wildcards.variant, int(job.wildcards.replicate), metric, reason])
    return cells


checked(preflight)


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


onerror:
    runlock.end()
    runmetadata.keep()
    # Jobs have failed; what the others have made is shown all the same, where the page was asked for. A process of its own
    # does it: it draws.
    facts = {
        "results": target(""),
        "study": STUDY_FACTS,
        "variants": VARIANT_ROWS,
        "replicates": [int(r) for r in REPLICATES],
        "unfinished": unfinished_figures(),
        "published": PUBLISHED,
        "templates": str(ROOT / "report" / "templates"),
    }
    if facts["unfinished"] and any(job.rule.name == "render_report" for job in workflow.dag.needrun_jobs()):
        subprocess.run([sys.executable, "-m", "ffnfold.incomplete"], input=json.dumps(facts), text=True)
