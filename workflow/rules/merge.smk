# The folders' embedding files -> {model}_embeddings_all.pt.


rule merge:
    input:
        parts=folder_vectors,
        complete=settings.RECORD_LIST_SUMMARY if config["require_complete"] else [],
    output:
        "results/embeddings/{model}_embeddings_all.pt",
    log:
        "results/logs/merge/{model}.log",
    conda:
        "../envs/echo-embeddings.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: attempt
        * estimate.merged_mb(clips(*FOLDERS), REGISTRY[wildcards.model]["embed_dim"]),
        runtime=lambda wildcards, attempt: attempt
        * estimate.merged_minutes(clips(*FOLDERS), REGISTRY[wildcards.model]["embed_dim"]),
    params:
        folders=list(FOLDERS),
        embed_dim=lambda wildcards: REGISTRY[wildcards.model]["embed_dim"],
        prefix_folder=config["merge"]["prefix_folder"],
    script:
        "../scripts/merge.py"
