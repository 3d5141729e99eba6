"""Files, folders, zips and URIs to slices; images in memory to the bytes of files."""
