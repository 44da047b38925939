"""Maps and vectors of prompts."""
