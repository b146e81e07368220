"""`paroma bench`: the figures that we claim."""

from typing import Annotated

import typer

from paroma.cli import show
from paroma.cli.show import Json

APP = show.app("Measure one of the figures that we claim.")


@APP.command()
def bench(
    name: Annotated[str, typer.Argument(help="round, secagg, heart, withdraw, kill, start or pdp.")],
    *,
    kills: Annotated[
        int | None, typer.Option("--kills", help="For `kill`: fewer than the 300 of the claim; the row says so.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure one figure against a peer or a bound; a planted defect must be caught. Exit 1 unless all hold."""
    from paroma.bench import benches, rows

    found = benches.run(name, say=show.say, kills=kills)
    text = show.table(rows.HEAD, [rows.cells(row) for row in found], none="nothing was measured")
    show.done({"bench": name, "rows": found}, text, json=json)
    if not found or not all(row.holds for row in found):
        raise typer.Exit(1)
