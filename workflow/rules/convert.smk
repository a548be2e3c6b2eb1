# A folder of DICOM -> MP4 tree + manifest. The tree and results/state/ are undeclared on purpose: Snakemake
# deletes declared outputs before every run, and a killed job is to go on where it was.


rule convert:
    output:
        manifest=RESULTS.manifest("{size}", "{folder}"),
        digest=RESULTS.manifest_digest("{size}", "{folder}"),
    log:
        RESULTS.log("convert", "{size}", "{folder}"),
    benchmark:
        RESULTS.benchmark("convert", "{size}", "{folder}")
    conda:
        "../envs/echo-embeddings.yaml"
    threads: config["convert"]["workers"]
    resources:
        attempt=this_attempt,
        mem_mb=lambda wildcards, threads, attempt: attempt * estimate.convert_mb(clips(wildcards.folder), threads),
        runtime=lambda wildcards, threads, attempt: attempt * estimate.convert_minutes(clips(wildcards.folder), threads),
    params:
        limit=config["limit"],
        # There for Snakemake alone: it runs a job again if they changed.
        source=lambda wildcards: survey(wildcards.folder).fingerprint,
        fingerprint=lambda wildcards: settings.convert_settings(
            settings.unmasked(config), int(wildcards.size)
        ).fingerprint(),
        corrections=corrections.names(corrections.CONVERT),
        ids_key=IDS_KEY.name if IDS_KEY else None,  # never the key itself: Snakemake keeps it
    script:
        "../scripts/convert.py"


# The same with pictures masked, in a tree of its own: what people copy never holds a file that is not masked.
if settings.convert_mask(config) != settings.UNMASKED:

    use rule convert as convert_masked with:
        output:
            manifest=RESULTS.manifest(masked("{size}"), "{folder}"),
            digest=RESULTS.manifest_digest(masked("{size}"), "{folder}"),
        log:
            RESULTS.log("convert", masked("{size}"), "{folder}"),
        benchmark:
            RESULTS.benchmark("convert", masked("{size}"), "{folder}")
        params:
            masked=True,
            limit=config["limit"],
            source=lambda wildcards: survey(wildcards.folder).fingerprint,
            fingerprint=lambda wildcards: settings.convert_settings(config, int(wildcards.size)).fingerprint(),
            fallback=config["convert"]["mask_fallback"],
            corrections=corrections.names(corrections.CONVERT),
            ids_key=IDS_KEY.name if IDS_KEY else None,
