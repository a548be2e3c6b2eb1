# The folders' embedding files -> {model}_embeddings_all.pt.


rule merge:
    localrule: True
    input:
        expand("results/embeddings/{{model}}_embeddings_{folder}.pt", folder=FOLDERS),
    output:
        "results/embeddings/{model}_embeddings_all.pt",
    params:
        folders=list(FOLDERS),
        embed_dim=lambda wildcards: REGISTRY[wildcards.model]["embed_dim"],
        prefix_folder=config["merge"]["prefix_folder"],
    log:
        "results/logs/merge/{model}.log",
    conda:
        "../envs/echo-embeddings.yaml"
    script:
        "../scripts/merge.py"
