"""Looks at networks: what each layer is, costs, sees and does. It never changes a network and never measures time."""
