"""`paroma demo`: one hub and four hospitals on this machine."""

from typing import Annotated

import typer

from paroma.cli import show
from paroma.cli.show import Json

APP = show.app("A hub and four hospitals on this machine.")


@APP.command()
def demo(
    scene: Annotated[int | None, typer.Option(min=1, max=9, help="Only this scene, and what it needs.")] = None,
    *,
    json: Json = False,
) -> None:
    """Play the scenes; each asserts what it shows. Exit 1 unless all held."""
    from paroma.lab.demo import scenes

    if not scenes.play(scene, json=json):
        raise typer.Exit(1)
