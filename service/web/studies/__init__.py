"""Body and result files of a study."""
