"""The variables whose update is timed, as lists of shapes."""

import math

MLP = [
    *((784, 512), (512,), (512, 512), (512,)),
    *((512, 512), (512,), (512, 10), (10,)),
]


def equal_tensors(millions, count):
    """`count` matrices of 1024 columns, some `millions` of weights in all."""
    rows = max(1, round(millions * 1e6 / count / 1024))
    return [(rows, 1024)] * count


def small_tensors(count):
    """What a small residual network has: kernels, matrices and biases."""
    kinds = [(3, 3, 16, 32), (64, 64), (64,)]
    return [kinds[i % 3] for i in range(count)]


def resnet20():
    """The trainable variables of a ResNet-20 for images of 32x32."""
    channels = [3, *[16] * 7, *[32] * 6, *[64] * 6]
    convolutions = [
        # A kernel, and the scales and biases of its batch normalization.
        [(3, 3, before, after), (after,), (after,)]
        for before, after in zip(channels, channels[1:], strict=False)
    ]
    return [*sum(convolutions, []), (64, 10), (10,)]


def weights_of(shapes):
    """The number of weights."""
    return sum(math.prod(shape) for shape in shapes)


def smaller(shapes):
    """As many tensors, with a twentieth of the weights or so."""
    return [(max(1, rows // 20), *rest) for rows, *rest in shapes]
