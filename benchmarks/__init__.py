"""mcjax beside a PyTorch reference, on one machine, in one run."""
