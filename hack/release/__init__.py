"""What a release consists of, and how it is made: docs/release.md."""
