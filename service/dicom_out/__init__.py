"""DICOM SEG and SR of a series, written by highdicom; NIfTI masks for slices that came without DICOM headers."""
