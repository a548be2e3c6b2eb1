# Vectors and tables -> files for other tools. Named targets, no part of a plain run:
#
#   snakemake export          results/parquet/{model}/ of every model in `models`
#   snakemake export_studies  results/study/{model}.parquet
#   snakemake export_matrices results/embeddings/{model}_embeddings_all.npy


rule export:
    input:
        expand(RESULTS.card("{model}"), model=config["models"]),
    localrule: True


rule export_studies:
    input:
        expand(RESULTS.study_vectors("{model}"), model=config["models"]),
    localrule: True


rule export_matrices:
    input:
        expand(RESULTS.matrix("{model}"), model=config["models"]),
    localrule: True


# One job writes all files of a model: the table is joined once, and the card counts over all of them.
rule export_parquet:
    input:
        parts=folder_vectors,
        digests=lambda wildcards: [manifest_digest(wildcards, folder) for folder in FOLDERS],
        tables=joining_files,
        complete=RESULTS.record_list_summary() if config["require_complete"] else [],
    output:
        shards=[
            RESULTS.parquet("{model}") / f"train-{i:05d}-of-{len(FOLDERS):05d}.parquet" for i in range(len(FOLDERS))
        ],
        card=RESULTS.card("{model}"),
    log:
        RESULTS.log("export_parquet", "{model}"),
    conda:
        "../envs/echo-embeddings.yaml"
    resources:
        attempt=this_attempt,
        mem_mb=exported_mb,
        runtime=60,
    params:
        folders=list(FOLDERS),
        fed_with=fed_with,
        columns=config["export"]["columns"],
        merging=MERGING,
        about=lambda wildcards: {
            "model": wildcards.model,
            "dim": REGISTRY[wildcards.model]["embed_dim"],
            "facts": facts_of(wildcards.model),
            "pretrained_on": REGISTRY[wildcards.model]["pretrained_on"],
            "collection": config["qc"]["collection"],
            "access": config["export"]["access"],
        },
        # There for Snakemake alone: it runs a job again if it changed.
        known=asdict(TABLES),
    script:
        "../scripts/export_parquet.py"


rule export_study:
    input:
        parts=folder_vectors,
        digests=lambda wildcards: [manifest_digest(wildcards, folder) for folder in FOLDERS],
        tables=joining_files,
        complete=RESULTS.record_list_summary() if config["require_complete"] else [],
    output:
        RESULTS.study_vectors("{model}"),
    log:
        RESULTS.log("export_study", "{model}"),
    conda:
        "../envs/echo-embeddings.yaml"
    resources:
        attempt=this_attempt,
        mem_mb=exported_mb,
        runtime=60,
    params:
        folders=list(FOLDERS),
        fed_with=fed_with,
        columns=config["export"]["columns"],
        dim=lambda wildcards: REGISTRY[wildcards.model]["embed_dim"],
        where=lambda wildcards: config["study"]["where"],  # which may have braces in its texts
        # There for Snakemake alone: it runs a job again if it changed.
        known=asdict(TABLES),
    script:
        "../scripts/export_study.py"


rule export_matrix:
    input:
        merged=RESULTS.merged("{model}"),
        parts=folder_vectors,
        digests=lambda wildcards: [manifest_digest(wildcards, folder) for folder in FOLDERS],
        tables=identifying_files,
    output:
        matrix=RESULTS.matrix("{model}"),
        names=RESULTS.matrix_keys("{model}"),
    log:
        RESULTS.log("export_matrix", "{model}"),
    conda:
        "../envs/echo-embeddings.yaml"
    resources:
        attempt=this_attempt,
        mem_mb=exported_mb,
        runtime=60,
    params:
        folders=list(FOLDERS),
        fed_with=fed_with,
        dim=lambda wildcards: REGISTRY[wildcards.model]["embed_dim"],
        merging=MERGING,
        # There for Snakemake alone: it runs a job again if it changed.
        known=asdict(IDENTIFYING),
    script:
        "../scripts/export_matrix.py"
