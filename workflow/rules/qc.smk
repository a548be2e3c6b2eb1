# Merged embeddings, manifests and run records -> HTML pages.


rule qc_model:
    input:
        merged="results/embeddings/{model}_embeddings_all.pt",
        digests=lambda wildcards: [manifest_digest(wildcards.model, folder) for folder in FOLDERS],
        record_list=settings.RECORD_LIST_SUMMARY if config["record_list"] else [],
        tables=selecting_files,
    output:
        page=report(
            "results/qc/{model}.html",
            caption="../report/model.rst",
            category="Quality",
            labels={"page": "vectors of {model}"},  # one label: the viewer makes a switch of a second, and fails on it
        ),
        numbers="results/qc/{model}.json",
    log:
        "results/logs/qc_model/{model}.log",
    conda:
        "../envs/echo-embeddings.yaml"
    threads: 2
    resources:
        mem_mb=lambda wildcards, attempt: attempt
        * estimate.merged_mb(clips(*FOLDERS), REGISTRY[wildcards.model]["embed_dim"]),
        runtime=lambda wildcards, attempt: attempt
        * estimate.merged_minutes(clips(*FOLDERS), REGISTRY[wildcards.model]["embed_dim"]),
    params:
        folders=list(FOLDERS),
        size=lambda wildcards: str(REGISTRY[wildcards.model]["resolution"]),
        prefix_folder=config["merge"]["prefix_folder"],
        pretrained_on=lambda wildcards: REGISTRY[wildcards.model]["pretrained_on"],
        collection=config["qc"]["collection"],
        pictures=config["qc"]["pictures"],
        hash_names=config["qc"]["hash_names"],
        version=settings.QC_VERSION,
        selecting=asdict(SELECTING),
    script:
        "../scripts/qc_model.py"


rule qc_index:
    input:
        pages=expand("results/qc/{model}.html", model=config["models"]),
        numbers=expand("results/qc/{model}.json", model=config["models"]),
        merged=expand("results/embeddings/{model}_embeddings_all.pt", model=config["models"]),
    output:
        page=report(
            "results/qc/index.html",
            caption="../report/index.rst",
            category="Quality",
            labels={"page": "all models"},
        ),
        numbers="results/qc/index.json",
    log:
        "results/logs/qc_index.log",
    # Not worth a job: of each model it reads the numbers of its page and 10,000 vectors.
    localrule: True
    conda:
        "../envs/echo-embeddings.yaml"
    threads: 2
    params:
        models=config["models"],
        version=settings.QC_VERSION,
    script:
        "../scripts/qc_index.py"
