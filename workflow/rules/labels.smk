# Measurements of a collection -> label tables, one row a study: `snakemake labels`, which no other rule asks for.


rule labels:
    input:
        expand(RESULTS.label("{name}"), name=LABELS),
    localrule: True


# One job makes all of them: the measurements are read once.
rule make_labels:
    input:
        unpack(measured_files),
    output:
        tables=[RESULTS.label(name) for name in LABELS],
        left_out=RESULTS.labels_left_out(),
    log:
        RESULTS.log("make_labels"),
    conda:
        "../envs/echo-embeddings.yaml"
    resources:
        attempt=this_attempt,
        mem_mb=lambda wildcards, attempt: attempt * 4000,
        runtime=120,
    params:
        names=list(LABELS),
        definitions=config["labels"]["definitions"],
        # There for Snakemake alone: it runs a job again if it changed.
        content={name: str(label) for name, label in LABELS.items()},
    script:
        "../scripts/make_labels.py"
