"""Help in named panels of plain text; loading rich takes as long as the rest of the program."""

import inspect
from typing import Any, get_type_hints

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.models import ArgumentInfo


class PanelCommand(TyperCommand):
    """A command whose help groups options by their `rich_help_panel`; arguments come first."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, panel by panel in order of first appearance."""
        parameters = self.get_params(ctx)
        unnamed = sum(
            _panel(parameter) is None and not isinstance(parameter, TyperArgument) for parameter in parameters
        )
        others = "Options" if unnamed > 1 else "Other"  # --help alone
        panels: dict[str, list[tuple[str, str]]] = {"Arguments": []}
        for parameter in parameters:
            row = parameter.get_help_record(ctx)
            if row is not None:
                title = "Arguments" if isinstance(parameter, TyperArgument) else _panel(parameter) or others
                panels.setdefault(title, []).append(row)
        for title, rows in panels.items():
            if not rows:
                continue
            with formatter.section(title):
                formatter.write_dl(rows)

    def format_arguments(self, ctx: Any, formatter: Any) -> None:
        """Write nothing: click 8.5 asks for a section of arguments besides `format_options`."""


class PanelGroup(TyperGroup):
    """A program whose help groups commands by their `rich_help_panel`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that is called, with the help of its arguments."""
        name, command, rest = super().resolve_command(ctx, args)
        _restore_help(command)
        return name, command, rest

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands panel by panel, in order of first appearance; the first line of their help is not cut."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                title = getattr(command, "rich_help_panel", None) or "Commands"
                panels.setdefault(title, []).append((name, command.get_short_help_str(limit=200)))
        for title, rows in panels.items():
            with formatter.section(title):
                formatter.write_dl(rows)


class PanelApp(typer.Typer):
    """A program, or a part of one, of such groups and commands. Plain help starts in half the time of rich's."""

    def __init__(self, **settings: Any) -> None:
        """Take what `typer.Typer` takes."""
        # click 8.5 suggests names of commands itself.
        super().__init__(
            cls=PanelGroup, no_args_is_help=True, rich_markup_mode=None, suggest_commands=False, **settings
        )

    def command(self, name: str | None = None, **settings: Any) -> Any:
        """Register a function as a command."""
        return super().command(name, cls=PanelCommand, **settings)


def given_in(panel: str, context: Any) -> list[str]:
    """Options of a panel that stand on the command line."""
    return [
        parameter.opts[0]
        for parameter in context.command.params
        if _panel(parameter) == panel and context.get_parameter_source(parameter.name).name == "COMMANDLINE"
    ]


def _panel(parameter: Any) -> str | None:
    return getattr(parameter, "rich_help_panel", None)


def _restore_help(command: Any) -> None:
    """Give arguments the help that stands in the command's signature: with click 8.5, typer before 0.26 loses it."""
    arguments = [each for each in command.params if isinstance(each, TyperArgument) and not each.help]
    if arguments and command.callback is not None:
        hints = get_type_hints(inspect.unwrap(command.callback), include_extras=True)
        for argument in arguments:
            stated = getattr(hints.get(argument.name or ""), "__metadata__", ())
            argument.help = next((each.help for each in stated if isinstance(each, ArgumentInfo)), None)
