"""One DICOM file: its mark, its header, its frames."""
