# Vectors and tables -> files for other tools. Named targets, no part of a plain run:
#
#   snakemake export          results/parquet/{model}/ of every model in `models`
#   snakemake export_studies  results/study/{model}.parquet
#   snakemake export_matrices results/embeddings/{model}_embeddings_all.npy


rule export:
    input:
        expand("results/parquet/{model}/README.md", model=config["models"]),
    localrule: True


rule export_studies:
    input:
        expand("results/study/{model}.parquet", model=config["models"]),
    localrule: True


rule export_matrices:
    input:
        expand("results/embeddings/{model}_embeddings_all.npy", model=config["models"]),
    localrule: True


# One job writes all files of a model: the table is joined once, and the card counts over all of them.
rule export_parquet:
    input:
        parts=folder_vectors,
        digests=lambda wildcards: [manifest_digest(wildcards.model, folder) for folder in FOLDERS],
        tables=joining_files,
        complete=settings.RECORD_LIST_SUMMARY if config["require_complete"] else [],
    output:
        shards=[f"results/parquet/{{model}}/train-{i:05d}-of-{len(FOLDERS):05d}.parquet" for i in range(len(FOLDERS))],
        card="results/parquet/{model}/README.md",
    log:
        "results/logs/export_parquet/{model}.log",
    conda:
        "../envs/echo-embeddings.yaml"
    resources:
        mem_mb=exported_mb,
        runtime=60,
    params:
        folders=list(FOLDERS),
        size=lambda wildcards: str(REGISTRY[wildcards.model]["resolution"]),
        known=asdict(TABLES),
        columns=config["export"]["columns"],
        about=lambda wildcards: {
            "model": wildcards.model,
            "dim": REGISTRY[wildcards.model]["embed_dim"],
            "pretrained_on": REGISTRY[wildcards.model]["pretrained_on"],
            "collection": config["qc"]["collection"],
            "access": config["export"]["access"],
        },
    script:
        "../scripts/export_parquet.py"


rule export_study:
    input:
        parts=folder_vectors,
        digests=lambda wildcards: [manifest_digest(wildcards.model, folder) for folder in FOLDERS],
        tables=joining_files,
        complete=settings.RECORD_LIST_SUMMARY if config["require_complete"] else [],
    output:
        "results/study/{model}.parquet",
    log:
        "results/logs/export_study/{model}.log",
    conda:
        "../envs/echo-embeddings.yaml"
    resources:
        mem_mb=exported_mb,
        runtime=60,
    params:
        folders=list(FOLDERS),
        size=lambda wildcards: str(REGISTRY[wildcards.model]["resolution"]),
        known=asdict(TABLES),
        columns=config["export"]["columns"],
        dim=lambda wildcards: REGISTRY[wildcards.model]["embed_dim"],
    script:
        "../scripts/export_study.py"


rule export_matrix:
    input:
        "results/embeddings/{model}_embeddings_all.pt",
    output:
        matrix="results/embeddings/{model}_embeddings_all.npy",
        names="results/embeddings/{model}_embeddings_all.keys.tsv",
    log:
        "results/logs/export_matrix/{model}.log",
    conda:
        "../envs/echo-embeddings.yaml"
    resources:
        mem_mb=exported_mb,
        runtime=60,
    script:
        "../scripts/export_matrix.py"
