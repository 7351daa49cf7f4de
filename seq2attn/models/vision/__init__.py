"""Networks that turn images into features, and those that use them."""
