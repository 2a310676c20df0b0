"""From the bytes of an image file to pixels. Imports `data.base` and nothing else of `data`."""
