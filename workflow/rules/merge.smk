# The folders' embedding files -> {model}_embeddings_all.pt.


rule merge:
    input:
        parts=folder_vectors,
        complete=RESULTS.record_list_summary() if config["require_complete"] else [],
    output:
        RESULTS.merged("{model}"),
    log:
        RESULTS.log("merge", "{model}"),
    conda:
        "../envs/echo-embeddings.yaml"
    resources:
        attempt=this_attempt,
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
