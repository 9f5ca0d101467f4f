"""The web app and API for agents, supervisors, administrators and integrators."""
