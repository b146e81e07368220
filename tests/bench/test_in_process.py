import numpy as np
import pyarrow as pa

from paroma.bench import secagg
from paroma.bench.in_process import InProcess, permit
from paroma.kernel.ids import SiteId
from paroma.learn.algorithms.query import Feature, Statistics, Summary
from paroma.learn.secagg.layout import Field, Layout


def test_statistics_through_the_real_door_and_masks_equal_the_pooled_ones():
    draw = np.random.default_rng(1)
    columns = [draw.uniform(0, 1, 30 + 7 * place) for place in range(4)]
    federation = InProcess([pa.table({"x": column}) for column in columns], permit(("x",), sites=4))
    found = federation.ask(Statistics(features=("x",)), [Feature(name="x", kind="number", low=0, high=1)])
    assert isinstance(found, Summary)
    pooled = np.concatenate(columns)
    assert found.patients == found.counts_to * round(len(pooled) / found.counts_to)
    assert abs(found.features[0].mean - pooled.mean()) < 1e-11


def test_masks_are_exact_and_reusing_them_is_seen(request):
    layout = Layout(
        fields=(Field(name="weights", length=500, ring=32, scale_bits=16, bound=1.0),),
        sites=secagg.SITES,
        most=secagg.MOST_PATIENTS,
    )
    values = np.linspace(-8, 8, 500, dtype=np.float32)
    assert secagg._exact(layout, values) == 0
    assert secagg._reuse_tells(layout, values)
    assert len({SiteId(name) for name in secagg.NAMES}) == 16
