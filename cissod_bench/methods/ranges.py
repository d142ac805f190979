"""Types of method options with a range; a value outside is refused, by the option's name, when options are read."""

from typing import Annotated

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
UnitInterval = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Inside = Annotated[float, msgspec.Meta(gt=0, lt=1)]
