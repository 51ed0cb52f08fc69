"""What the experiment of one chapter needs beyond the library: one module a notebook, of the same name."""
