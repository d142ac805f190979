"""Words that agree in number."""


def counted(count: int, noun: str) -> str:
    """A count and its noun, with a plural in -s: "1 thread", "2,000 images"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
