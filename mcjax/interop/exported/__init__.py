"""Programs of `torch.export` as networks of mcjax; see `mcjax.interop.exported.load`."""
