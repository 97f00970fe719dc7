"""The API server: HTTP in front, storage behind, everything between driven by resource descriptors."""
