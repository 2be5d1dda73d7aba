"""The OAuth face of the broker: endpoints that take a form and answer in JSON."""
