"""One small network twice, in PyTorch and in JAX, and the table between them."""

from flax import linen

from mcjax.interop.rows import CONV, SAME, Row, flat

SHAPE = (8, 8, 1)


def in_torch():
    """The network in PyTorch; one of its activations overwrites its input."""
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1),
                nn.ReLU(inplace=True),
                nn.MaxPool2d(2),
                nn.Conv2d(4, 4, 3, padding=1),
                nn.BatchNorm2d(4),
                nn.ReLU(),
            )
            self.head = nn.Linear(4 * 4 * 4, 3)

        def forward(self, x):
            return self.head(self.body(x).flatten(1))

    torch.manual_seed(0)
    torch.set_num_threads(1)
    return Net().eval()


class InJax(linen.Module):
    """The same in JAX."""

    @linen.compact
    def __call__(self, x, train=False):
        x = linen.relu(linen.Conv(4, (3, 3), padding=1)(x))
        x = linen.max_pool(x, (2, 2), (2, 2))
        x = linen.Conv(4, (3, 3), padding=1)(x)
        x = linen.relu(linen.BatchNorm(use_running_average=not train, epsilon=1e-5)(x))
        return linen.Dense(3)(x.reshape(len(x), -1))


TABLE = [
    Row("body.0.weight", "params/Conv_0/kernel", CONV),
    Row("body.0.bias", "params/Conv_0/bias", SAME),
    Row("body.3.weight", "params/Conv_1/kernel", CONV),
    Row("body.3.bias", "params/Conv_1/bias", SAME),
    Row("body.4.weight", "params/BatchNorm_0/scale", SAME),
    Row("body.4.bias", "params/BatchNorm_0/bias", SAME),
    Row("body.4.running_mean", "batch_stats/BatchNorm_0/mean", SAME),
    Row("body.4.running_var", "batch_stats/BatchNorm_0/var", SAME),
    Row("head.weight", "params/Dense_0/kernel", flat(4, 4, 4)),
    Row("head.bias", "params/Dense_0/bias", SAME),
]
