"""From images to a first recipe: look at them, choose settings, time a few steps, write the recipe."""
