"""What must happen later: deadlines, the scheduler that handles them, expired rows, and the sealing of the audit."""
