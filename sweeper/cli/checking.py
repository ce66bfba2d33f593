"""The command `check`."""

import json
from pathlib import Path

import click

from sweeper.cli.options import with_json
from trainables import plugin_files, plugins
from trainables.errors import UnknownNameError


@click.command()
@click.argument("texts", nargs=-1, required=True, metavar="FILE...")
@with_json
def check(texts: tuple[str, ...], as_json: bool) -> int:
    """Hold plug-ins to their contract, in seconds.

    FILE is a Python file with a model, data set, metric or sweep, or the name of one.
    """
    found = [_found(text) for text in texts]
    from sweeper.machines.probe import Probe
    from sweeper.scheduling import checking

    with Probe() as probe:
        checked = {name: (kind, checking.check(package, name, probe)) for package, kind, name in found}
    num_broken = sum(bool(verdict.problem) for _, verdicts in checked.values() for verdict in verdicts)
    if as_json:
        told = {
            name: {each.law: each.problem for each in verdicts} for name, (_, verdicts) in checked.items()
        }
        click.echo(json.dumps(told))
        return int(num_broken > 0)
    for name, (kind, verdicts) in checked.items():
        click.echo(f"{kind} {name}")
        for verdict in verdicts:
            click.echo(f"  {'broken' if verdict.problem else 'ok':6}  {verdict.law}")
            if verdict.problem:
                click.echo(f"          {verdict.problem}")
    return int(num_broken > 0)


def _found(text: str) -> tuple[str, str, str]:
    """Return package, kind and name of a plug-in."""
    if plugin_files.is_file(text):
        file = plugins.add_path(Path(text))
        return file.package, plugin_files.SIGNS[file.package][0], file.name
    for package, (kind, _) in plugin_files.SIGNS.items():
        if text in plugins.names(package):
            return package, kind, text
    names = [name for package in plugin_files.SIGNS for name in plugins.names(package)]
    raise UnknownNameError(
        "plug-in", text, names, "For a file of your own give its path, for example ./my_model.py."
    )
