"""Files and folders by path or URL."""
