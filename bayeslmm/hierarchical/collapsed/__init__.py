"""The collapsed sampler: random and fixed effects integrated out exactly, the rest by importance sampling."""
