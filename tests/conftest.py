"""Strict JAX settings, and eight CPU devices, for every test."""

import jax
import matplotlib

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
matplotlib.use("Agg")
