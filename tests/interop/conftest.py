"""PyTorch networks with numbers that are not those of a start."""

import pytest

from mcjax import models
from mcjax.interop import layouts
from mcjax.interop.layouts.layout import rows_of


@pytest.fixture
def random_net():
    """`random_net(arch, options, image_shape, code, curve, seed) -> (torch module, layout, module)`."""
    torch = pytest.importorskip("torch")
    from mcjax.interop import reference

    torch.set_num_threads(1)  # several would wait for each other: tests run beside each other

    def make(name, options, image_shape, *, code=None, curve=False, seed=0, num_classes=7):
        module = models.create(name, num_classes=num_classes, **options)
        layout = next(
            layout
            for layout in layouts.find(models.family(name), curve=curve)
            if code in (None, layout.code)
        )
        net = reference.build(module, layout, image_shape)
        run = {row.torch for row in rows_of(layout, module, image_shape)}
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for key, w in net.state_dict().items():
                if w.ndim == 1 and key in run:  # biases, normalisations and their statistics
                    positive = "var" in key or "weight" in key
                    w.copy_(torch.rand(w.shape, generator=generator) + (0.5 if positive else -0.5))
                elif w.ndim > 1:
                    w.copy_(torch.randn(w.shape, generator=generator) * (2 / w[0].numel()) ** 0.5)
        return net, layout, module

    return make
