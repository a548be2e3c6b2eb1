"""Rule probe: the manifest of a folder of MP4 files that are there already."""

from pathlib import Path

from echo_embeddings import collection, job, probe

if __name__ == "__main__":  # worker processes import this file
    with job.logged(snakemake.log[0]) as terminal:
        size, folder = snakemake.wildcards.size, snakemake.wildcards.folder
        keys = snakemake.config["convert"]
        probe.probe_folder(
            collection.find(snakemake.params.mp4_dir, folder, collection.MP4),
            Path(snakemake.output.manifest),
            Path(snakemake.output.digest),
            Path("results/state/convert", size, folder),
            limit=snakemake.params.limit,
            workers=snakemake.threads,
            timeout=keys["timeout"],
            max_failed_fraction=keys["max_failed_fraction"],
            terminal=terminal,
        )
