# What `make demo` runs on: a small collection of real echo clips and a model with random weights. A workflow of
# its own, so that no rule of the real one knows of a demo:
#
#   snakemake -s workflow/rules/demo.smk --directory demo --cores 1


rule all:
    default_target: True
    input:
        "dicom",
        "labels.csv",
        "weights/vit-tiny.pt",


rule demo_labels:
    output:
        "labels.csv",
    log:
        "results/logs/demo_labels.log",
    conda:
        "../envs/echo-embeddings.yaml"
    params:
        seed=0,
    script:
        "../scripts/demo_labels.py"


rule demo_collection:
    output:
        directory("dicom"),
    log:
        "results/logs/demo_collection.log",
    conda:
        "../envs/echo-embeddings.yaml"
    script:
        "../scripts/demo_collection.py"


rule demo_weights:
    output:
        "weights/vit-tiny.pt",
    log:
        "results/logs/demo_weights.log",
    conda:
        "../envs/echo-embeddings.yaml"
    params:
        constructor="vit_tiny",
        entry="encoder",
        seed=0,
    script:
        "../scripts/demo_weights.py"
