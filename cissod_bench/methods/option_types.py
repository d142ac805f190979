"""Types of method options with a range; reading options refuses values outside it and names the option."""

from typing import Annotated

import msgspec

MOST = 1e6
"""No option makes sense above this; infinity would only fail in the middle of a run."""

Positive = Annotated[float, msgspec.Meta(gt=0, le=MOST)]
NotNegative = Annotated[float, msgspec.Meta(ge=0, le=MOST)]
UnitInterval = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Inside = Annotated[float, msgspec.Meta(gt=0, lt=1)]
Average = Annotated[float, msgspec.Meta(ge=0, lt=1)]
"""Coefficient of a moving average: with 1 it would never move."""
