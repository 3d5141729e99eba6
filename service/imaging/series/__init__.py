"""Series of slices in anatomical order, from files, zips and volumes."""
