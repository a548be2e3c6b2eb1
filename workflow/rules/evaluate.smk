# Merged vectors and label tables -> what each model can predict: `snakemake evaluate`, which no other rule asks for.


rule evaluate:
    input:
        evaluations,
    localrule: True


rule evaluate_clips:
    input:
        merged=RESULTS.merged("{model}"),
        digests=lambda wildcards: [manifest_digest(wildcards, folder) for folder in FOLDERS],
        tables=joining_files,
    output:
        RESULTS.evaluated_clips("{model}"),
    log:
        RESULTS.log("evaluate_clips", "{model}"),
    conda:
        "../envs/echo-embeddings.yaml"
    threads: 2
    resources:
        attempt=this_attempt,
        mem_mb=exported_mb,
        runtime=60,
    params:
        folders=list(FOLDERS),
        fed_with=fed_with,
        prefix_folder=config["merge"]["prefix_folder"],
        # There for Snakemake alone: it runs a job again if they changed.
        known=asdict(TABLES),
        used=sorted(selecting(TASKS)),
        version=settings.EVALUATE_VERSION,
    script:
        "../scripts/evaluate_clips.py"


rule evaluate_task:
    input:
        merged=RESULTS.merged("{model}"),
        clips=RESULTS.evaluated_clips("{model}"),
        table=label_table,
    output:
        numbers=RESULTS.evaluation("{task}", "{model}"),
        predictions=RESULTS.evaluation_predictions("{task}", "{model}"),
        head=RESULTS.evaluation_head("{task}", "{model}"),
    log:
        RESULTS.log("evaluate_task", "{task}", "{model}"),
    conda:
        "../envs/echo-embeddings.yaml"
    threads: 1
    resources:
        attempt=this_attempt,
        mem_mb=exported_mb,
        runtime=lambda wildcards, attempt: attempt * 120,
    params:
        # There for Snakemake alone: it runs a job again if they changed.
        version=settings.EVALUATE_VERSION,
        task=lambda wildcards: asdict(TASKS[wildcards.task]),
        options={name: config["evaluate"][name] for name in ("folds", "bootstrap", "seed", "shots")},
    script:
        "../scripts/evaluate_task.py"


rule evaluate_index:
    input:
        numbers=[RESULTS.evaluation(task, model) for task in TASKS for model in config["models"]],
        predictions=[RESULTS.evaluation_predictions(task, model) for task in TASKS for model in config["models"]],
        digests=pictured_manifests,
    output:
        page=report(
            RESULTS.evaluation_index(),
            caption="../report/evaluate.rst",
            category="Evaluation",
            labels={"page": "all tasks"},
        ),
        numbers=RESULTS.evaluation_index().with_suffix(".json"),
        pages=[RESULTS.evaluation_page(task) for task in TASKS],
    log:
        RESULTS.log("evaluate_index"),
    conda:
        "../envs/echo-embeddings.yaml"
    threads: 2
    resources:
        attempt=this_attempt,
        mem_mb=lambda wildcards, attempt: attempt * 4000,
        runtime=lambda wildcards, attempt: attempt * 120,
    params:
        tasks=list(TASKS),
        models=config["models"],
        folders=list(FOLDERS),
        fed_with=lambda wildcards: {name: str(model_of(name).clips) for name in config["models"]},
        prefix_folder=config["merge"]["prefix_folder"],
        pictures=config["qc"]["pictures"],
        hash_names=config["qc"]["hash_names"],
        bootstrap=config["evaluate"]["bootstrap"],
        seed=config["evaluate"]["seed"],
        # There for Snakemake alone: it runs a job again if it changed.
        version=settings.EVALUATE_VERSION,
    script:
        "../scripts/evaluate_index.py"
