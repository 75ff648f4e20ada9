"""What every other folder stands on: errors, sizes, files, keyed randomness, the registry, the reading of cards."""
