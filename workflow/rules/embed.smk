# An MP4 tree + a checkpoint -> {model}_embeddings_{folder}.pt, on a GPU unless embed.device is cpu. Where embed.pool
# keeps features too, their files are undeclared, as the MP4 tree is, and the index is the output.


rule embed:
    input:
        digest=manifest_digest,
        checkpoint=checkpoint,
        tables=selecting_files,
    output:
        **FEATURES,
        vectors=RESULTS.vectors("{model}", "{folder}"),
    log:
        RESULTS.log("embed", "{model}", "{folder}"),
    benchmark:
        RESULTS.benchmark("embed", "{model}", "{folder}")
    conda:
        "../envs/echo-embeddings.yaml"
    # On a CPU the encoder takes all cores of the machine, or 8 where a cluster has no such number.
    threads: max(1, config["embed"]["num_workers"]) if config["embed"]["device"] == "cuda" else CORES or 8
    resources:
        attempt=this_attempt,
        gpu=int(config["embed"]["device"] == "cuda"),
        mem_mb=lambda wildcards, attempt: attempt * embed_mb(wildcards),
        runtime=lambda wildcards, threads, attempt: attempt * embed_minutes(wildcards, threads),
    params:
        # All are there for Snakemake alone: it runs a job again if they changed. A corrected MP4 may have its old size.
        fingerprint=lambda wildcards: model_of(wildcards.model).fingerprint(),
        corrections=corrections.names(corrections.CONVERT + corrections.EMBED),
        selecting=asdict(SELECTING),
    script:
        "../scripts/embed.py"
