"""The path of a change through the services: from its commit over its events to their effects and deliveries."""
