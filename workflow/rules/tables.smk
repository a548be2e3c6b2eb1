# The record list against the disk. What it finds is on the quality pages; with require_complete it stops the merge.


if config["record_list"]:

    rule check_record_list:
        input:
            record_list,
        output:
            RESULTS.record_list_summary(),
        log:
            RESULTS.log("check_record_list"),
        # First of all: an incomplete collection is to be known before hours are spent on it.
        priority: 100
        conda:
            "../envs/echo-embeddings.yaml"
        resources:
            attempt=this_attempt,
            mem_mb=4000,
            runtime=60,
        params:
            require_complete=config["require_complete"],
            # There for Snakemake alone: it runs a job again if it changed.
            source=lambda wildcards: [survey(folder).fingerprint for folder in FOLDERS],
        script:
            "../scripts/check_record_list.py"
