"""Networks that models share."""
