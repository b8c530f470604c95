"""Conversion of networks from and to PyTorch; see `mcjax.interop.torch`."""
