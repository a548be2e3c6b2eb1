# A folder of DICOM -> MP4 tree + manifest. The tree and results/state/ are undeclared on purpose: Snakemake
# deletes declared outputs before every run, and a killed job is to go on where it was.


rule convert:
    output:
        manifest="results/mp4/{size}/{folder}.manifest.tsv",
        digest="results/mp4/{size}/{folder}.manifest.sha256",
    params:
        source=lambda wildcards: folder_fingerprint(wildcards.folder),
        settings=lambda wildcards: asdict(settings.convert_settings(config, int(wildcards.size))),
        limit=config["limit"],
    log:
        "results/logs/convert/{size}/{folder}.log",
    benchmark:
        "results/benchmarks/convert/{size}/{folder}.tsv"
    threads: config["convert"]["workers"]
    resources:
        mem_mb=lambda wildcards, threads, attempt: attempt * (1000 + 500 * threads),
        runtime=lambda wildcards, attempt: attempt * 720,
    conda:
        "../envs/echo-embeddings.yaml"
    script:
        "../scripts/convert.py"
