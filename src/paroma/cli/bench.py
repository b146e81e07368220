"""`paroma bench`: the figures that we claim."""

from typing import Annotated

import typer

from paroma.cli import show
from paroma.cli.show import Json

APP = show.app("Measure one of the figures that we claim.")


@APP.command()
def bench(
    name: Annotated[str, typer.Argument(help="round, secagg, heart, withdraw, kill or start.")], *, json: Json = False
) -> None:
    """Measure one figure against a peer or a bound; a planted defect must be caught. Exit 1 unless all hold."""
    from paroma.bench import benches

    rows = benches.run(name, say=show.say)
    cells = [
        (
            row.what,
            f"{row.value:g} {row.unit}",
            row.against if row.against_value is None else f"{row.against} {row.against_value:g}",
            str(row.goal),
            "holds" if row.holds else "DOES NOT HOLD",
        )
        for row in rows
    ]
    text = show.table(("what", "value", "against", "goal", ""), cells, none="nothing was measured")
    show.done({"bench": name, "rows": rows}, text, json=json)
    if not rows or not all(row.holds for row in rows):
        raise typer.Exit(1)
