"""`covid-ct pacs`: chest CT series of a PACS get their results, through DICOMweb."""
