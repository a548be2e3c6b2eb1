"""What every part needs: settings, the registry, paths, atomic files, locks, the manifest, vectors, progress, jobs."""
