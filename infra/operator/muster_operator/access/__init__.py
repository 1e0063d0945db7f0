"""Access to Kafka: ACLs derived from the topics' files, and the credentials of users with a password."""
