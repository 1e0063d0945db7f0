"""Who an operator is to the services: OAuth clients, the session of a login, and the commands about it."""
