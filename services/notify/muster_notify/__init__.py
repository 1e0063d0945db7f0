"""Notifies people and systems of what happened: rules, e-mail, webhooks and their deliveries."""
