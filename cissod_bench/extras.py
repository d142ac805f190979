"""The extras of the package, and what to do where a library is missing or cannot be loaded."""

EXTRAS = {
    "train": ("torch", "torchvision", "mmdet", "mmengine", "mmcv", "cv2", "safetensors", "lvis"),
    "slurm": ("submitit",),
}
"""The modules that each extra brings."""


def install_command(extra: str) -> str:
    """The command that adds an extra to an installed cissod-bench; a shell takes it as it is."""
    return f"pip install 'cissod-bench[{extra}]'"


def remedy_of_import(error: ImportError) -> str | None:
    """What to do where a library cannot be imported for a known reason, None for any other error.

    Either an extra is not installed, or OpenCV cannot be loaded: mmdet asks for two distributions of it that unpack
    into the same folder. Where the one with windows came last, importing it needs libGL, which servers and container
    images lack.
    """
    for extra, modules in EXTRAS.items():
        if error.name in modules and isinstance(error, ModuleNotFoundError):
            return f"This needs {error.name}, which comes with the extra `{extra}`. Run `{install_command(extra)}`."
    if any(name in str(error) for name in ("libGL", "libgthread", "libSM", "libXext")):
        return (
            f"OpenCV cannot be loaded ({error}): the distribution with windows is installed over the headless one. Run "
            "`pip install --force-reinstall --no-deps opencv-python-headless`."
        )
    return None
