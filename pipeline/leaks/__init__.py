"""The leak check: which evaluation images a model may have seen in training, as they are or nearly so."""
