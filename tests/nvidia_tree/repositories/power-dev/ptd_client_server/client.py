"""Stand-in for tests of what the power workflow calls."""
