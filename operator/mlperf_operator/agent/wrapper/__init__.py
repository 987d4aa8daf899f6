"""The stage wrapper: every file here travels to each run's pod in a ConfigMap, into one folder, without the package.

NVIDIA's image has none of our packages and Python 3.10, so all of it is standard-library Python 3.10. Programs are
stage.py, preflight.py and snapshot.py.
"""
