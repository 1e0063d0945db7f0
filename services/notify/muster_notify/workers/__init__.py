"""The long-running duties: dispatching deliveries and replaying missed ones."""
