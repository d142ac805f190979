"""Help in named panels, in plain text: rich would take as long to load as all the rest of the program."""

from typing import Any

from typer.core import TyperCommand


class PanelCommand(TyperCommand):
    """A command whose help lists its options under the headings given as their `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, panel by panel, in the order in which the panels come up."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is not None:
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or "Other", []).append(row)
        for title, rows in panels.items():
            with formatter.section(title):
                formatter.write_dl(rows)
