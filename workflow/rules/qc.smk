# Merged embeddings, manifests and run records -> HTML pages.


rule qc_model:
    input:
        merged="results/embeddings/{model}_embeddings_all.pt",
        digests=lambda wildcards: [manifest_digest(wildcards.model, folder) for folder in FOLDERS],
    output:
        page="results/qc/{model}.html",
        numbers="results/qc/{model}.json",
    log:
        "results/logs/qc_model/{model}.log",
    conda:
        "../envs/echo-embeddings.yaml"
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: attempt
        * estimate.merged_mb(clips(*FOLDERS), REGISTRY[wildcards.model]["embed_dim"]),
        runtime=60,
    params:
        folders=list(FOLDERS),
        size=lambda wildcards: str(REGISTRY[wildcards.model]["resolution"]),
        prefix_folder=config["merge"]["prefix_folder"],
    script:
        "../scripts/qc_model.py"


rule qc_index:
    input:
        pages=expand("results/qc/{model}.html", model=config["models"]),
        numbers=expand("results/qc/{model}.json", model=config["models"]),
    output:
        "results/qc/index.html",
    log:
        "results/logs/qc_index.log",
    localrule: True
    conda:
        "../envs/echo-embeddings.yaml"
    params:
        models=config["models"],
    script:
        "../scripts/qc_index.py"
