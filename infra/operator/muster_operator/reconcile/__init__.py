"""`muster reconcile`: the four services beside one another, and beside the topics."""
