"""What must happen later: deadlines, the scheduler that handles them, and the deletion of expired rows."""
