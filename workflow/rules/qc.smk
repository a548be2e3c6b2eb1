# Merged embeddings, manifests and run records -> HTML pages.


rule qc_model:
    input:
        merged=RESULTS.merged("{model}"),
        digests=lambda wildcards: [manifest_digest(wildcards, folder) for folder in FOLDERS],
        record_list=RESULTS.record_list_summary() if config["record_list"] else [],
        tables=paged_files,
    output:
        page=report(
            RESULTS.page("{model}"),
            caption="../report/model.rst",
            category="Quality",
            labels={"page": "vectors of {model}"},  # one label: the viewer makes a switch of a second, and fails on it
        ),
        numbers=RESULTS.page_numbers("{model}"),
    log:
        RESULTS.log("qc_model", "{model}"),
    conda:
        "../envs/echo-embeddings.yaml"
    threads: 2
    resources:
        attempt=this_attempt,
        mem_mb=lambda wildcards, attempt: attempt
        * estimate.merged_mb(clips(*FOLDERS), REGISTRY[wildcards.model]["embed_dim"]),
        runtime=lambda wildcards, attempt: attempt
        * estimate.merged_minutes(clips(*FOLDERS), REGISTRY[wildcards.model]["embed_dim"]),
    params:
        folders=list(FOLDERS),
        fed_with=fed_with,
        prefix_folder=config["merge"]["prefix_folder"],
        pretrained_on=lambda wildcards: REGISTRY[wildcards.model]["pretrained_on"],
        collection=config["qc"]["collection"],
        pictures=config["qc"]["pictures"],
        hash_names=config["qc"]["hash_names"],
        # There for Snakemake alone: it runs a job again if they changed.
        version=settings.QC_VERSION,
        known=asdict(PAGED),
    script:
        "../scripts/qc_model.py"


rule qc_index:
    input:
        pages=expand(RESULTS.page("{model}"), model=config["models"]),
        numbers=expand(RESULTS.page_numbers("{model}"), model=config["models"]),
        merged=expand(RESULTS.merged("{model}"), model=config["models"]),
    output:
        page=report(
            RESULTS.index_page(),
            caption="../report/index.rst",
            category="Quality",
            labels={"page": "all models"},
        ),
        numbers=RESULTS.index_numbers(),
    log:
        RESULTS.log("qc_index"),
    # Not worth a job: of each model it reads the numbers of its page and 10,000 vectors.
    localrule: True
    conda:
        "../envs/echo-embeddings.yaml"
    threads: 2
    resources:
        attempt=this_attempt,
    params:
        models=config["models"],
        facts={name: facts_of(name) for name in config["models"]},
        # There for Snakemake alone: it runs a job again if it changed.
        version=settings.QC_VERSION,
    script:
        "../scripts/qc_index.py"
