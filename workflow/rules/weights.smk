# A checkpoint that is absent when the workflow is read -> the file. One that is there is a plain input that no rule
# makes, so that neither --forceall nor a changed url touches it. The part file is undeclared: it outlives failures.

ABSENT_WEIGHTS = {
    checkpoint_path(model): model
    for model, entry in REGISTRY.items()
    if entry["url"] and kinds.absent(checkpoint_path(model))
}


# On the machine where Snakemake runs: nodes of a cluster often have no way to the internet.
for path, model in ABSENT_WEIGHTS.items():

    rule:
        name:
            f"download_weights_{model}"
        output:
            # "update": not deleted beforehand, should another run have fetched it in the meantime.
            update(path),
        log:
            RESULTS.log("download_weights", model),
        priority: 1
        localrule: True
        conda:
            "../envs/echo-embeddings.yaml"
        resources:
            attempt=this_attempt,
        params:
            url=REGISTRY[model]["url"],
            sha256=REGISTRY[model]["sha256"],
        script:
            "../scripts/download_weights.py"
