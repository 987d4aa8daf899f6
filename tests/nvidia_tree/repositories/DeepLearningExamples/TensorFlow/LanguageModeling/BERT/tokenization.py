"""Stand-in for tests: what the accuracy script imports from the submodule."""

NAME = "tokens"
