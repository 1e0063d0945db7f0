"""The databases, schemas, and roles of the services: what is missing, and making it."""
