"""chaos: breaks a raftkube on purpose and judges what it did; raftkube never imports it."""
