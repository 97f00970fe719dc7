"""All rules of a kind together: metadata first, then the kind's own, as upstream orders them.

The schema's types are checked before (an object here has the right shape).
"""

from __future__ import annotations

from raftkube.api.metadata import validate_metadata, validate_metadata_update
from raftkube.api.resource import Object, Resource
from raftkube.api.status import FieldError


def validate_create(resource: Resource, obj: Object) -> list[FieldError]:
    """Everything that is wrong with a new object; [] if it may be stored."""
    return [*validate_metadata(obj, resource), *resource.strategy.validate(obj)]


def validate_update(resource: Resource, new: Object, old: Object) -> list[FieldError]:
    """Everything that is wrong with replacing `old` by `new`; [] if it may be stored."""
    errors = validate_metadata_update(new, old)
    strategy = resource.strategy
    errors += [error for error in strategy.validate(new) if error not in errors]
    return errors + [error for error in strategy.validate_update(new, old) if error not in errors]


def validate_status_update(resource: Resource, new: Object, old: Object) -> list[FieldError]:
    """Everything that is wrong with a write to the status subresource."""
    return [*validate_metadata_update(new, old), *resource.strategy.validate_status_update(new, old)]
