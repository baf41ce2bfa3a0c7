"""Nobody is let in who has no secret, and no secret is let out."""
