"""The service in front of a model: access, policy, routing, cache, metrics, feedback."""
