"""An operator's identity: OAuth clients, the session of a login, and the commands that manage it."""
