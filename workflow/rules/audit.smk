# What text can still be read in MP4 files: `snakemake audit_text`, which no other rule asks for.


rule audit_text:
    input:
        digests=audited_manifests,
    output:
        page=RESULTS.text_audit(),
        numbers=RESULTS.text_audit().with_suffix(".json"),
    log:
        RESULTS.log("audit_text"),
    conda:
        "../envs/echo-embeddings.yaml"
    threads: config["convert"]["workers"]
    resources:
        attempt=this_attempt,
        mem_mb=lambda wildcards, threads, attempt: attempt * (1000 + 300 * threads),
        runtime=lambda wildcards, attempt: attempt * 120,
    params:
        folders=list(FOLDERS),
        fed_with=lambda wildcards: audited_kinds(),
        clips=config["audit"]["clips"],
        pictures=config["qc"]["pictures"],
        hash_names=config["qc"]["hash_names"],
        # There for Snakemake alone: it runs a job again if it changed.
        version=settings.AUDIT_VERSION,
    script:
        "../scripts/audit_text.py"
