# A folder of videos that are there already -> its manifest, in the place of `convert`. The files stay untouched.


rule probe:
    output:
        manifest=RESULTS.manifest("{size}", "{folder}"),
        digest=RESULTS.manifest_digest("{size}", "{folder}"),
    log:
        RESULTS.log("probe", "{size}", "{folder}"),
    benchmark:
        RESULTS.benchmark("probe", "{size}", "{folder}")
    conda:
        "../envs/echo-embeddings.yaml"
    threads: config["convert"]["workers"]
    resources:
        attempt=this_attempt,
        mem_mb=lambda wildcards, threads, attempt: attempt * estimate.convert_mb(clips(wildcards.folder), threads),
        runtime=lambda wildcards, threads, attempt: attempt * estimate.convert_minutes(clips(wildcards.folder), threads),
    params:
        mp4_dir=config["mp4_dir"],
        limit=config["limit"],
        # There for Snakemake alone: it runs a job again if they changed.
        source=lambda wildcards: survey(wildcards.folder).fingerprint,
        version=settings.PROBE_VERSION,
    script:
        "../scripts/probe.py"
