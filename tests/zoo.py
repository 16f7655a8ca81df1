"""Well-known image networks, written out by hand for the tests: torchvision and timm need not be installed."""

import torch
from torch import nn


def conv_norm(i, o, kernel, stride=1, groups=1, activation=nn.SiLU):
    conv = nn.Conv2d(i, o, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(o), activation())


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


class SqueezeExcitation(nn.Module):
    def __init__(self, channels, squeezed):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x):
        scale = torch.sigmoid(self.fc2(nn.functional.silu(self.fc1(self.avgpool(x)))))
        return scale * x


class MBConv(nn.Module):
    def __init__(self, i, o, expand, kernel, stride):
        super().__init__()
        wide = i * expand
        layers = [conv_norm(i, wide, 1)] if expand != 1 else []
        layers += [conv_norm(wide, wide, kernel, stride, groups=wide), SqueezeExcitation(wide, max(1, i // 4))]
        layers += [nn.Conv2d(wide, o, 1, bias=False), nn.BatchNorm2d(o)]
        self.block = nn.Sequential(*layers)
        self.residual = stride == 1 and i == o

    def forward(self, x):
        return self.block(x) + x if self.residual else self.block(x)


class EfficientNetB0(nn.Module):
    """Tan & Le 2019."""

    def __init__(self, classes=1000):
        super().__init__()
        stages = [(1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2), (6, 3, 2, 80, 3)]
        stages += [(6, 5, 1, 112, 3), (6, 5, 2, 192, 4), (6, 3, 1, 320, 1)]
        layers, previous = [conv_norm(3, 32, 3, 2)], 32
        for expand, kernel, stride, channels, depth in stages:
            for number in range(depth):
                layers.append(MBConv(previous, channels, expand, kernel, stride if number == 0 else 1))
                previous = channels
        self.features = nn.Sequential(*layers, conv_norm(previous, 1280, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean(dim=(2, 3)))


class DenseLayer(nn.Module):
    def __init__(self, i, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(i), nn.Conv2d(i, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        bottleneck = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(bottleneck)))], 1)


class DenseNetBC121(nn.Module):
    """Huang et al. 2017: blocks of 6, 12, 24 and 16 layers, growth 32, compression 0.5."""

    def __init__(self, classes=1000, growth=32):
        super().__init__()
        channels = 2 * growth
        stem = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
        layers = [stem, nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        for number, depth in enumerate((6, 12, 24, 16)):
            for _ in range(depth):
                layers.append(DenseLayer(channels, growth))
                channels += growth
            layers += [nn.BatchNorm2d(channels), nn.ReLU()]
            if number < 3:
                layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2, 2)]
                channels //= 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x):
        return self.classifier(nn.functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
