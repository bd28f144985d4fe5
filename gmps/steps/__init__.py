"""Steps on parameters: losses, advantages, inner steps."""
