"""What must happen later: deadlines, the scheduler that handles them, and how a waiting duty wakes up."""
