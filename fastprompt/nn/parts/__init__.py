"""What drop-ins of several hosts share."""
