"""From the bytes of an image file to its pixels. Imports `data.base` and nothing else of `data`."""
