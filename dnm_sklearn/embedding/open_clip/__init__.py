"""Everything that touches open_clip: names of models, building them, running them."""
