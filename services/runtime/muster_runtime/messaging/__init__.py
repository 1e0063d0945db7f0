"""Events to and from Kafka: the outbox, the relay that publishes it, and the consumer that applies each event once."""
