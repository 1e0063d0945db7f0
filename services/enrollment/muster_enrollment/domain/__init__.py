"""The rules of an agency's enrollment.

An agency submits an enrollment. It is active while an authorization to use (ATU) is in force and the data-use terms are
accepted, and suspended if it was active and no ATU is in force anymore. It is withdrawn, or it ends with its last term.
Intervals are half-open: [start, end).
"""
