"""A service with only a producer, a consumer and a scheduler, on which the faults are tried."""
