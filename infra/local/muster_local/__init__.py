"""The local stack: real Postgres, real Kafka, a mail sink, and the four services, run by the `muster` command."""
