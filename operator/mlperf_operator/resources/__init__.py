"""Pure builders of the objects that a run needs, one file a kind."""
