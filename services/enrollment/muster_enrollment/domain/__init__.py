"""The rules of an agency's enrollment.

An agency asks to join (submitted). It is active as long as an authorization to use (ATU) is in force and it is
bound by the data-use terms; it is suspended when it was active and no longer is so. It leaves (withdrawn), or its
last term runs out (ended). Intervals are half-open: [start, end).
"""
