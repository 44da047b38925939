"""SAM's mask decoder: two-way transformer, mask head, token MLPs."""
