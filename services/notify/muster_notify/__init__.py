"""Notifies people and systems of events: rules, e-mail, webhooks, and their deliveries."""
