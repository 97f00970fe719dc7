"""A real etcd under the same workload and the same checkers: a client with the store's interface over etcd's
HTTP/JSON gateway, three members as processes, faults for them, one run. No judging lives here."""
