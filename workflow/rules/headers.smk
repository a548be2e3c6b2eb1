# A folder of DICOM -> its manifest by headers alone, for models that are fed straight from DICOM.


rule read_headers:
    output:
        manifest=RESULTS.manifest(DICOM, "{folder}"),
        digest=RESULTS.manifest_digest(DICOM, "{folder}"),
    log:
        RESULTS.log("read_headers", DICOM, "{folder}"),
    benchmark:
        RESULTS.benchmark("read_headers", DICOM, "{folder}")
    conda:
        "../envs/echo-embeddings.yaml"
    threads: config["convert"]["workers"]
    resources:
        attempt=this_attempt,
        mem_mb=lambda wildcards, threads, attempt: attempt * estimate.convert_mb(clips(wildcards.folder), threads),
        runtime=lambda wildcards, threads, attempt: attempt * estimate.headers_minutes(clips(wildcards.folder), threads),
    params:
        limit=config["limit"],
        # There for Snakemake alone: it runs a job again if they changed.
        source=lambda wildcards: survey(wildcards.folder).fingerprint,
        modalities=config["convert"]["modalities"],
        version=settings.HEADERS_VERSION,
        ids_key=IDS_KEY.name if IDS_KEY else None,  # never the key itself: Snakemake keeps it
    script:
        "../scripts/read_headers.py"
