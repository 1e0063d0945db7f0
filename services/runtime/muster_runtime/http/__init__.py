"""A service's HTTP side: the application, its middleware, access, commands, and health."""
