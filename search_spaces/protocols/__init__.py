"""What sweeps share: data, networks and steps at each scale."""
