"""From the bytes of a file to one canonical grey slice, and to pictures."""
