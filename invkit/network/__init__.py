"""Any network as blocks: classifiers, generators, how they are cut, and the small networks trained here."""
