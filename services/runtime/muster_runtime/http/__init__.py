"""The HTTP side of a service: the application, its middleware, who may do what, and commands."""
