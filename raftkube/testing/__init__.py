"""The pytest plugin of raftkube: fixtures that a test asks for; nothing is automatic."""
