"""`muster trace`: follows a change through the services, from its commit to events, their effects, and deliveries."""
