"""A service with nothing of its own but a producer, a consumer and a scheduler: what the faults are tried on."""
