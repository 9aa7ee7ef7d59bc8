"""gradcam++-softmax straight from the paper: Eq. 21 to 24 as they stand, and Eq. 10.

In decimals of 200 digits: the sums of the paper cancel where the network is sure of a class.
"""

from decimal import Decimal, getcontext

import numpy as np

getcontext().prec = 200
exact = np.vectorize(lambda number: Decimal(float(number)), otypes=[object])
exponential = np.vectorize(Decimal.exp, otypes=[object])


def derivatives(scores, slopes, chosen):
    """Y^c, 1 - Y^c and the first three derivatives of Y^c along each entry of A (Eq. 21, 22, 23, 24), of decimals.

    scores: (K,). slopes: (K, ...), dS^k/dA. The derivatives have the shape of A.
    """
    scores, slopes = exact(scores), exact(slopes)
    y = exponential(scores - scores.max())
    y = y / y.sum()
    shaped = y.reshape(-1, *(1,) * (slopes.ndim - 1))
    inner = slopes - (shaped * slopes).sum(0)
    first = shaped * inner  # of every class, (K, ...)
    spread = (first * slopes).sum(0)
    second = first * inner - shaped * spread
    third = second * inner - 2 * first * spread - shaped * (second * slopes).sum(0)
    return y[chosen], np.delete(y, chosen).sum(), (first[chosen], second[chosen], third[chosen])


def weights(activations, derivatives, share):
    """w of each channel (C,) by Eq. 10 and 5, and how many positions were poles.

    activations: (C, ...). derivatives: three of the same shape, or with 1 for the space. share: Y (1 - Y), which scales
    all channels alike and is taken out.
    """
    activations = exact(activations)
    first, second, third = (np.broadcast_to(array, activations.shape) for array in derivatives)
    total, poles = [], 0
    for channel, *three in zip(activations, first, second, third, strict=True):
        size, weight = max(channel.sum(), Decimal(0)), Decimal(0)
        for one, two, cube in zip(*(array.ravel() for array in three), strict=True):
            below = 2 * two + size * cube
            is_pole = abs(below) < abs(two) * Decimal("1e-3")
            poles += is_pole and one > 0
            if below != 0 and not is_pole:
                weight += two / below * max(one, Decimal(0))
        total.append(float(weight / share))
    return np.array(total), poles


def explained(activations, scores, slopes, chosen):
    """w (C,) and the count of poles of one picture. slopes: (K, C, ...), of the space of the activations or of 1."""
    y, rest, found = derivatives(scores, slopes, chosen)
    return weights(activations, found, y * rest)
