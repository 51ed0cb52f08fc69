"""The tests: a package, so that no other of this name, which some distributions install, stands in its place."""
