"""The driver pod: makes a node's driver, fabric manager and container toolkit match, and goes on verifying it."""
