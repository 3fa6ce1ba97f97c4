"""The leak check: which evaluation images are also training images, exactly or nearly."""
