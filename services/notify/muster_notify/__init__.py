"""Tells people and systems what happened: rules, e-mail, webhooks and their deliveries."""
