"""The project's Kubernetes API, one module a version."""
