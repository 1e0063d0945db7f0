"""The long-running duties: dispatching deliveries and replaying missed ones; and the rebuild of the directory."""
