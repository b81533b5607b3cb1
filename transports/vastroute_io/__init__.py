"""Transports for `vastroute`: each module is one, and importing this package imports none of them."""
