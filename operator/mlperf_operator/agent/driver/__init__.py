"""The driver pod: makes a node's driver, fabric manager and container toolkit match, and keeps verifying that they do."""
