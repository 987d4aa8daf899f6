"""MLPerf Inference runs on GPU nodes as one declarative Kubernetes object."""
