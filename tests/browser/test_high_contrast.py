"""The widgets with the high-contrast theme of JupyterLab, and for readers who want more contrast."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from test_axe import OF_THE_HOST, VIEWS, findings

pytestmark = pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")

THEME = "JupyterLab Dark High Contrast"
TEXTS = ("ink", "ink-2", "ink-3", "accent", "good", "warn", "bad")
MARKS = ("c1", "c2", "c3", "c4", "c5", "s1", "s2", "s3", "s4", "s5", "s6", "edge", "line", "line-2")

ATTRIBUTES = "(name) => { Object.assign(document.body.dataset, { jpThemeLight: 'false', jpThemeName: name }); }"

RESOLVE = """(names) => {
  const root = document.querySelector(".lmvp");
  const probe = root.appendChild(document.createElement("span"));
  const colour = (value) => { probe.style.color = value; return getComputedStyle(probe).color; };
  const found = Object.fromEntries(names.map((name) => [name, colour(`var(--${name})`)]));
  let ground = root;
  while (/rgba\\(.*, 0\\)|transparent/.test(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
  found.ground = getComputedStyle(ground).backgroundColor;
  probe.remove();
  return found;
}"""


def luminance(colour):
    """Return the relative luminance of a computed colour (WCAG 2.2)."""
    numbers = [float(each) for each in re.findall(r"[\d.]+", colour.replace("srgb", ""))[:3]]
    shares = numbers if colour.startswith("color(") else [each / 255 for each in numbers]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(colour, ground):
    dark, light = sorted([luminance(colour), luminance(ground)])
    return (light + 0.05) / (dark + 0.05)


def theme_css():
    """Return the styles of the theme that JupyterLab brings along."""
    jupyterlab = pytest.importorskip("jupyterlab", reason="JupyterLab is not installed")
    path = Path(jupyterlab.__file__).parent / "themes/@jupyterlab/theme-dark-high-contrast-extension/index.css"
    return re.sub(r"url\([^)]*\)", "none", path.read_text("utf-8"))


def dress(page):
    """Give a page the theme as JupyterLab does: its styles, and two attributes of the body."""
    page.add_style_tag(content=theme_css())
    page.evaluate(ATTRIBUTES, THEME)
    page.add_style_tag(content="body { background: var(--jp-layout-color0) !important }")


def check(found):
    ground = found["ground"]
    ratios = {name: round(contrast(colour, ground), 1) for name, colour in found.items()}
    assert {name: ratio for name, ratio in ratios.items() if name in TEXTS and ratio < 7} == {}
    assert {name: ratio for name, ratio in ratios.items() if name in MARKS and ratio < 3} == {}
    shades = [ratios[f"c{tint}"] for tint in range(1, 6)]
    assert shades == sorted(shades), "more change, more contrast"
    assert len(set(shades)) == 5
    assert min(ratios[f"s{number}"] for number in range(1, 7)) >= 7


@pytest.mark.parametrize("name", VIEWS)
def test_view_is_readable_with_the_high_contrast_theme(host, name):
    page, _ = host.show(VIEWS[name](), dark=True)
    dress(page)
    page.locator(".lmvp").first.wait_for()
    check(page.evaluate(RESOLVE, [*TEXTS, *MARKS]))
    assert findings(page, {**OF_THE_HOST, "color-contrast-enhanced": {"enabled": True}}) == []
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_follows_a_wish_for_more_contrast(server, browser, scheme):
    page = browser.new_context(color_scheme=scheme, contrast="more").new_page()
    page.goto(f"{server.url}/login")
    check(page.evaluate(RESOLVE, [*TEXTS, *MARKS]))
    assert findings(page, {"color-contrast-enhanced": {"enabled": True}}) == []
    page.close()


def test_chart_is_painted_in_the_colours_of_the_theme(host):
    page, _ = host.show(VIEWS["curves"](), dark=True)
    dress(page)
    pixels = """() => {
      const canvas = document.querySelector('canvas');
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      let found = 0;
      for (let i = 0; i < data.length; i += 4) found += [127, 191, 255].every((value, n) => data[i + n] === value);
      return found;
    }"""
    page.wait_for_function(f"() => ({pixels})() > 20", timeout=10_000)
    page.close()
