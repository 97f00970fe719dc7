"""Judges of recorded histories. They import nothing of raftkube: an oracle that shares code with what it
judges shares its bugs."""
