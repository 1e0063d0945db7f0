"""Muster's container images: how they are built, what is in them, and the bundle that installs them offline."""
