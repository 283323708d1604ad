"""The directory of all workers' facts, the rooms in it, sessions that ended, and whether it has converged."""
