"""Mode connectivity and adversarial robustness in JAX."""
