"""`make test-nvidia-tree`: what this project says about NVIDIA's v4.1 tree, held against a checkout of it."""
