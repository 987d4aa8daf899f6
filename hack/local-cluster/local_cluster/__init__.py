"""A real Kubernetes on one machine without Docker: etcd, a control plane, containerd and a kubelet as plain processes.

It uses the standard library only, so that it runs with Debian's own python3 before anything else is installed.
"""
