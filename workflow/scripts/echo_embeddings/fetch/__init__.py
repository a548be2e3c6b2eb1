"""Files from the internet: checkpoints, and tables and DICOM of PhysioNet."""
