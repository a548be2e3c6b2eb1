# A folder of MP4 files that are there already -> its manifest, in the place of `convert`. The files stay untouched.


rule probe:
    output:
        manifest="results/mp4/{size}/{folder}.manifest.tsv",
        digest="results/mp4/{size}/{folder}.manifest.sha256",
    log:
        "results/logs/probe/{size}/{folder}.log",
    benchmark:
        "results/benchmarks/probe/{size}/{folder}.tsv"
    conda:
        "../envs/echo-embeddings.yaml"
    threads: config["convert"]["workers"]
    resources:
        mem_mb=lambda wildcards, threads, attempt: attempt * estimate.convert_mb(clips(wildcards.folder), threads),
        runtime=lambda wildcards, threads, attempt: attempt * estimate.convert_minutes(clips(wildcards.folder), threads),
    params:
        source=lambda wildcards: survey(wildcards.folder).fingerprint,
        mp4_dir=config["mp4_dir"],
        limit=config["limit"],
    script:
        "../scripts/probe.py"
