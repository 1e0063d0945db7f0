"""Entitlements: who holds a seat, which features are open and until when."""
