"""Builds Muster's container images, their SBOMs, and the bundle for offline installation."""
