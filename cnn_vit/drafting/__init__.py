"""Drafts a first recipe from a user's images: looks at them, chooses settings, times a few steps, writes the recipe."""
