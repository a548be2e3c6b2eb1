# Merged embeddings, manifests and run records -> HTML pages.


rule qc_model:
    input:
        merged="results/embeddings/{model}_embeddings_all.pt",
        digests=lambda wildcards: [manifest_digest(wildcards.model, folder) for folder in FOLDERS],
    output:
        "results/qc/{model}.html",
    params:
        folders=list(FOLDERS),
        size=lambda wildcards: str(REGISTRY[wildcards.model]["resolution"]),
        prefix_folder=config["merge"]["prefix_folder"],
    log:
        "results/logs/qc_model/{model}.log",
    threads: 2
    resources:
        mem_mb=16000,
        runtime=60,
    conda:
        "../envs/echo-embeddings.yaml"
    script:
        "../scripts/qc_model.py"


rule qc_index:
    localrule: True
    input:
        expand("results/qc/{model}.html", model=config["models"]),
    output:
        "results/qc/index.html",
    params:
        models=config["models"],
    log:
        "results/logs/qc_index.log",
    conda:
        "../envs/echo-embeddings.yaml"
    script:
        "../scripts/qc_index.py"
