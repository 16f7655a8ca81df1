"""Well-known image networks, in the form of ImageNet: torchvision and timm need not be installed."""

import sys
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

from benchmarks import appendix  # noqa: E402


class BasicBlock(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(o)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(o)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or i != o:
            self.downsample = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        identity = x if self.downsample is None else self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet18(nn.Module):
    """He et al. 2015, the layout and names of the usual ImageNet model."""

    def __init__(self, classes=1000, width=64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        previous = width
        for number in range(4):
            o, stride = width * 2**number, 1 if number == 0 else 2
            blocks = nn.Sequential(BasicBlock(previous, o, stride), BasicBlock(o, o, 1))
            setattr(self, f"layer{number + 1}", blocks)
            previous = o
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(previous, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def EfficientNetB0(classes=1000):
    """Tan & Le 2019."""
    trunk = appendix.EfficientNetB0()
    return nn.Sequential(trunk, nn.Linear(trunk.num_features, classes))


def DenseNetBC121(classes=1000):
    """Huang et al. 2017: blocks of 6, 12, 24 and 16 layers, growth 32, compression 0.5."""
    trunk = appendix.DenseNetBC((6, 12, 24, 16), 32, "imagenet")
    return nn.Sequential(trunk, nn.Linear(trunk.num_features, classes))
