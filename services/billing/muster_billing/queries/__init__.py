"""The read side: an agency's lists, and the reports of the whole program."""
