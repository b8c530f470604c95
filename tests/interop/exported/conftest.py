"""A small PyTorch network and its export, made once."""

import pytest


def module():
    """Convolutions with BatchNorm, a residual, pooling, dropout, a class-wise linear head."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).reshape(3, 1, 1))
            self.stem = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
            )
            self.conv = nn.Conv2d(8, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8, momentum=0.3, eps=1e-3)
            self.pool = nn.MaxPool2d(2)
            self.drop = nn.Dropout(0.4)
            self.head = nn.Linear(8 * 4 * 4, 5)

        def forward(self, x):
            x = self.stem((x - self.mean) / 0.25)
            x = torch.relu(self.norm(self.conv(x)) + x)
            return self.head(self.drop(self.pool(x).view(x.size(0), -1)))

    torch.manual_seed(0)
    torch.set_num_threads(1)  # several would wait for each other: tests run beside each other
    net = Net()
    with torch.no_grad():
        for norm in (net.stem[1], net.norm):
            norm.running_mean.uniform_(-0.3, 0.3)
            norm.running_var.uniform_(0.5, 2)
    return net.eval()


def export(net, path, shape=(2, 3, 8, 8), **options):
    torch = pytest.importorskip("torch")
    torch.export.save(torch.export.export(net, (torch.rand(shape),), **options), path)
    return path


@pytest.fixture(scope="session")
def net():
    return module()


@pytest.fixture(scope="session")
def exported(net, tmp_path_factory):
    """The .pt2 file of `net`."""
    return export(net, tmp_path_factory.mktemp("exported") / "net.pt2")


@pytest.fixture
def export_fn(tmp_path):
    """`export_fn(module, shape=..., **options) -> path`."""

    def make(net, shape=(2, 3, 8, 8), **options):
        return export(net.eval(), tmp_path / "other.pt2", shape, **options)

    return make
