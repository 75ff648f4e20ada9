"""From a model's name to a module that classifies: cards, where their parts and weights come from, loading."""
