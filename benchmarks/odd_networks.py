"""Hand-written PyTorch networks with layers that published classifiers seldom have."""

import torch
from torch import nn
from torch.nn import functional as F


class Groups(nn.Module):
    """Grouped, depthwise and dilated convolutions, GroupNorm, squeeze and excitation, two poolings."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.4))
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.SiLU())
        self.wide = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=16)
        self.grouped = nn.Conv2d(16, 32, 3, groups=4, padding="same")
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(32, 8, 1), nn.ReLU(inplace=True), nn.Conv2d(8, 32, 1)
        )
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(64 * 9, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images to logits."""
        x = self.stem(x - self.mean)
        x = self.grouped(F.hardswish(self.wide(x) + x))
        x = x * torch.sigmoid(self.gate(x))
        x = torch.cat([F.adaptive_avg_pool2d(x, 3), F.adaptive_max_pool2d(x, 3)], 1)
        return self.head(x.flatten(1))


class UpAndDown(nn.Module):
    """Transposed convolutions, interpolation, pixel shuffle, average pooling, skip connections."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 12, 4, 2, 1)
        self.norm = nn.BatchNorm2d(12)
        self.up = nn.ConvTranspose2d(12, 8, 3, 2, 1, output_padding=1)
        self.mix = nn.Conv2d(8 + 12 + 3 + 3, 16, 1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images to logits."""
        y = F.elu(self.norm(self.down(x)))
        z = F.interpolate(y, scale_factor=2, mode="bilinear")
        small = F.interpolate(F.avg_pool2d(x, 3, 2, 1), size=x.shape[2:], mode="nearest")
        shuffled = F.pixel_shuffle(y, 2)
        x = F.leaky_relu(self.mix(torch.cat([self.up(y), z, small, shuffled], 1)))
        return self.head(x.amax((2, 3)))


class Attention(nn.Module):
    """Attention by einsum over patches, relative positions, LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 24, 4, 4)
        self.positions = nn.Parameter(torch.randn(1, 64, 24) * 0.1)
        self.query_key_value = nn.Linear(24, 72)
        self.norm = nn.LayerNorm(24)
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images to logits."""
        x = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        q, k, v = self.query_key_value(self.norm(x)).reshape(x.shape[0], -1, 3, 4, 6).unbind(2)
        weights = torch.softmax(torch.einsum("bnhd,bmhd->bhnm", q, k) / 6**0.5, -1)
        x = x + torch.einsum("bhnm,bmhd->bnhd", weights, v).reshape(x.shape)
        return self.head(F.gelu(x).mean(1))


class SharedLayers(nn.Module):
    """One block used three times, changes in place, an auxiliary mask."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16))
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps images to logits."""
        mask = x.new_zeros(x.shape[2:])
        mask[4:-4, 4:-4] = 1.0
        x = F.max_pool2d(self.stem(x * mask), 3, 2, 1)
        for _ in range(3):
            x = F.relu_(self.block(x)) + x
            x += 0.1
        return self.head(x.mean((2, 3)))


def small_cnn() -> nn.Module:
    """Three convolutions with BatchNorm, two dense layers."""
    layers: list[nn.Module] = []
    for a, b in ((3, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
    head = [nn.Flatten(), nn.Linear(64 * 16, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 10)]
    return nn.Sequential(*layers, *head)


NETWORKS = {
    "small_cnn": small_cnn,
    "groups": Groups,
    "up_and_down": UpAndDown,
    "attention": Attention,
    "shared_layers": SharedLayers,
}
