"""The HTTP side of a service: the application, its middleware, access, commands, and health."""
