"""Where an artifact runs, and what that place can do."""
