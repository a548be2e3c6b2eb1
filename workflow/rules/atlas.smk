# All clips as points on a plane, for Embedding Atlas (docs/quality.md): `snakemake atlas`, which no other rule asks for.


rule atlas:
    input:
        expand(RESULTS.atlas("{model}"), model=config["models"]),
    localrule: True


rule atlas_model:
    input:
        merged=RESULTS.merged("{model}"),
        parts=folder_vectors,
        digests=lambda wildcards: [manifest_digest(wildcards, folder) for folder in FOLDERS],
        tables=joining_files,
    output:
        RESULTS.atlas("{model}"),
    log:
        RESULTS.log("atlas_model", "{model}"),
    conda:
        "../envs/echo-embeddings.yaml"
    threads: 2
    resources:
        attempt=this_attempt,
        mem_mb=exported_mb,
        runtime=lambda wildcards, attempt: attempt * 720,
    params:
        folders=list(FOLDERS),
        fed_with=fed_with,
        columns=config["export"]["columns"],
        merging=MERGING,
        pictures=config["qc"]["pictures"],
        # There for Snakemake alone: it runs a job again if they changed.
        version=settings.QC_VERSION,
        known=asdict(TABLES),
    script:
        "../scripts/atlas.py"
