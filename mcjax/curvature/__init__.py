"""Curvature of the loss: largest Hessian eigenvalues in the images and in the weights."""

from mcjax.curvature.eigenvalue import TopEigenvalue, top_eigenvalue
from mcjax.curvature.input_hessian import input_hessian_eigenvalue
from mcjax.curvature.quadratic import QuadraticModel, quadratic_model
from mcjax.curvature.weight_hessian import weight_hessian_eigenvalue

__all__ = [
    "QuadraticModel",
    "TopEigenvalue",
    "input_hessian_eigenvalue",
    "quadratic_model",
    "top_eigenvalue",
    "weight_hessian_eigenvalue",
]
