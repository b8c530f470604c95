"""Networks from PyTorch and back: see `mcjax.interop.torch`."""
