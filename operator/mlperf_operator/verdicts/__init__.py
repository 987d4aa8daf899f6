"""What is said of a run and of its results, and by which policy: the heart of it, pure."""
