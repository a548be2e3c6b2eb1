# PhysioNet -> dicom_dir and tables: `snakemake physionet`, which no other rule asks for. What it fetches is
# undeclared, and so is never deleted; the output lists it. Credentials are in the environment or in ~/.netrc; the
# directive "envvars" would write them into the command lines of a cluster's jobs.


# On the machine where Snakemake runs: nodes of a cluster often have no way to the internet.
rule physionet:
    output:
        RESULTS.physionet(),
    log:
        RESULTS.log("physionet"),
    localrule: True
    conda:
        "../envs/echo-embeddings.yaml"
    resources:
        attempt=this_attempt,
    params:
        url=config["physionet"]["url"],
        project=config["physionet"]["project"],
        version=physionet_version,
        include=config["physionet"]["include"],
        tables_dir=config["physionet"]["tables_dir"],
        dicom_dir=config["dicom_dir"],
    script:
        "../scripts/fetch_physionet.py"
