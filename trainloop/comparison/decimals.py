"""Numbers of one column as texts with the same decimal places, as many as the most certain of them has."""

import math

# Outside of these, and where the largest is so many times the smallest, all are powers of ten.
_SMALLEST, _LARGEST, _RANGE = 1e-3, 1e6, 1e5

# Digits of a mean, however small its spread is; of numbers without one those of the largest and of the smallest.
_MOST_WITH_SPREAD, _OF_LARGEST, _OF_SMALLEST = 5, 4, 2


def texts(means, spreads):
    """`0.396 ± 0.005`, one for each mean.

    Args:
        means: floats; None gives an empty text.
        spreads: floats of the same length; 0 where there is none.
    """
    pairs = [(mean, spread) for mean, spread in zip(means, spreads, strict=True) if mean is not None]
    sizes = [abs(mean) for mean, _ in pairs if mean]
    if sizes and (min(sizes) < _SMALLEST or max(sizes) >= _LARGEST or max(sizes) > _RANGE * min(sizes)):
        return [_scientific(mean, spread) for mean, spread in zip(means, spreads, strict=True)]
    by_spread = [_places(mean, spread) for mean, spread in pairs if spread]
    places = max([*by_spread, _places_alone([mean for mean, spread in pairs if not spread])])
    return [_fixed(mean, spread, places) for mean, spread in zip(means, spreads, strict=True)]


def _places(mean, spread):
    """Decimal places down to the first digit of the spread."""
    return max(0, min(-_power(float(f"{spread:.1g}")), _MOST_WITH_SPREAD - 1 - _power(mean)))


def _places_alone(means):
    """Decimal places that show enough of the largest and of the smallest number, but no zeros that all end in."""
    powers = [_power(mean) for mean in means] or [0]
    places = max(0, _OF_LARGEST - 1 - max(powers), _OF_SMALLEST - 1 - min(powers))
    while places and all(round(mean, places) == round(mean, places - 1) for mean in means):
        places -= 1
    return places


def _power(value):
    """Of ten, that the first digit stands for; that of 1 for 0."""
    return math.floor(math.log10(abs(value))) if value else 0


def _fixed(mean, spread, places):
    if mean is None:
        return ""
    text = f"{mean:,.{places}f}"
    if not spread:
        return text
    one_digit = float(f"{spread:.1g}")
    shown = f"{spread if places else one_digit:.{places}f}"
    return f"{text} ± {shown if float(shown) else f'{one_digit:g}'}"


def _scientific(mean, spread):
    if mean is None:
        return ""
    return f"{mean:.2e}" + (f" ± {spread:.0e}" if spread else "")
