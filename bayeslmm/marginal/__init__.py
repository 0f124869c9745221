"""The marginal reading: closed-form likelihood, REML and ML fits, and their inference."""
