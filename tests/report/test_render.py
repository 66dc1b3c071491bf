"""Templates: everything is escaped, nothing is missing, and they come with the package."""

import importlib.resources
from html import unescape

import numpy as np
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup

from tests.toys.made_up_run import Page
from wsss_jax.comparison import table
from wsss_jax.report import render
from wsss_jax.report.render import Figure, Pictures, line_figure
from wsss_jax.viz.line_chart import LineChart, Series

EVIL = "\"'><script>alert(1)</script>&"


def written(source: str, **values) -> str:
    environment = render._environment("wsss_jax.report")
    return environment.from_string(source).render(pictures=Pictures(10, 80), **values)


def test_values_are_escaped_wherever_they_stand():
    page = Page(written("<p title=\"{{ x }}\" class='{{ x }}'>{{ x }}</p>", x=EVIL))
    assert page.tags == [("p", {"title": EVIL, "class": EVIL})] and page.text == [EVIL]
    assert written("{{ x }}", x=Markup("<b>")) == "<b>"


def test_a_name_that_does_not_exist_is_an_error():
    for source in ("{{ nothing }}", "{{ run.nothing }}", "{% if nothing %}{% endif %}"):
        with pytest.raises(UndefinedError, match="nothing"):
            written(source, run=table)


@pytest.mark.parametrize("package", ["wsss_jax.report", "wsss_jax.comparison"])
def test_every_template_of_a_package_compiles(package):
    folder = importlib.resources.files(package).joinpath("templates")
    names = sorted(entry.name for entry in folder.iterdir())
    templates = [name for name in names if name.endswith(".jinja")]
    assert templates and any(name.endswith(".css") for name in names)
    for name in templates:
        assert render._environment(package).get_template(name).filename
    # A page of another package may build on the parts of the report.
    assert render._environment(package).get_template("parts.html.jinja")


def test_a_chart_of_hostile_names_is_one_figure():
    chart = LineChart(
        EVIL, [0.0, 1.0], [Series(EVIL, [1.0, 2.0], 1), Series("b", [2.0, 1.0], 2)], EVIL, note=EVIL
    )
    figure = line_figure(chart, "x")
    source = '{% import "parts.html.jinja" as page %}{{ page.chart(figure) }}'
    page = Page(written(source, figure=figure))
    assert page.open == [] and not page.named("script")
    assert page.text.count(EVIL) == 4, "title, note, legend, name of the axis"
    (plot,) = page.named("div", class_="plot")
    assert EVIL in str(plot["aria-label"]) and plot["tabindex"] == "0"
    (outer,) = page.named("figure", class_="chart")
    assert unescape(str(outer["data-chart"])).count("alert(1)") == 2
    silent = Figure("t", "", "s", Markup("<svg></svg>"))
    page = Page(written(source, figure=silent))
    assert "tabindex" not in page.named("div", class_="plot")[0] and not page.named(
        "div", class_="area"
    )


def test_the_area_to_point_at_is_the_plot():
    """Per cent of the SVG; within, the script finds a value by the limits of the axes."""
    figure = line_figure(LineChart("a", [0.0, 10.0], [Series("b", [1.0, 2.0], 1)], "x"), "x")
    assert figure.area is not None and figure.data is not None
    left, top, width, height = figure.area
    assert 0 < left < 15 and 0 <= top < 10 and 80 < left + width < 100 and 80 < top + height < 95
    assert figure.data["ax"] == (0.0, 10.0) and figure.data["ay"] == (1.0, 2.0)
    # The lowest grid line of the SVG lies on the lower edge of the area.
    lines = [a["d"] for a in Page(figure.svg).named("path") if "--line" in str(a.get("style"))]
    heights = [float(str(line).split()[2]) for line in lines]
    assert max(heights) == pytest.approx((top + height) * 3.5, abs=0.2)
    assert min(heights) == pytest.approx(top * 3.5, abs=0.2)


def test_pictures_are_small_jpegs():
    picture = np.zeros((100, 200, 3), np.uint8)
    assert Pictures(480, 85).uri(picture).startswith("data:image/jpeg;base64,")
    assert len(Pictures(40, 85).uri(picture)) < len(Pictures(480, 85).uri(picture))
