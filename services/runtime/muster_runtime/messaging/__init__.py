"""Events to and from Kafka: the relay that publishes the outbox, and the consumer that applies each event once."""
