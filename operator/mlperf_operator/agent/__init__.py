"""What runs inside a run's pod. stage.py and preflight.py travel there in a ConfigMap; collect.py is in our image."""
