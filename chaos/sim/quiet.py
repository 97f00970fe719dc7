"""Members that say nothing."""

from __future__ import annotations

import logging

import structlog


def hush() -> None:
    """What members log under thousands of faults is nobody's reading, and takes time."""
    logging.disable(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
