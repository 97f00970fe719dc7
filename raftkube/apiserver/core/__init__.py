"""The pure part of the API server: patches, validation, tables, discovery, authorization."""
