"""Who may do what on Kafka: ACLs from the topics' files, and the credentials of those who log in with a password."""
