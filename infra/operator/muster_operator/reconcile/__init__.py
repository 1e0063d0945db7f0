"""`muster reconcile`: compares the four services with each other and with the topics."""
