"""The Kubernetes API as data: kinds, metadata, quantities, selectors, schemas, codecs.

Pure: objects are plain JSON values (dicts, lists, str, int, float, bool, None), nothing here waits, reads
a clock or draws a random number; whoever calls hands those in.
"""
