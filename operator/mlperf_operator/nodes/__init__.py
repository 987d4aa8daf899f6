"""Nodes and their drivers, as far as it is pure: what is seen, which node a run gets, and what a node needs next."""
