"""Names that config files import."""
