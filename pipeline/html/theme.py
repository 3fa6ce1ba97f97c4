"""The style of the pages: colours that colour-blind readers can distinguish, light and dark, wide and narrow.

The series colours follow Okabe and Ito 2008, lightened for the dark background. Figures in a page use the CSS
variables, so that they follow its theme; pictures in files use the light colours.
"""

from __future__ import annotations

# Each colour on the light and on the dark background.
_PAIRS = {
    "paper": ("#fbfaf7", "#14171b"),
    "card": ("#ffffff", "#1b1f25"),
    "ink": ("#1d2126", "#e8e6e1"),
    "muted": ("#626b76", "#9aa3ae"),
    "line": ("#e2dfd8", "#30363e"),
    "soft": ("#f1efe9", "#22272e"),
    "accent": ("#0b62a4", "#6cb6ef"),
    "good": ("#0a7d55", "#57c99b"),
    "good-soft": ("#e2f3ec", "#15332a"),
    "hold": ("#9a5b00", "#e9b154"),
    "hold-soft": ("#fbefdb", "#382b14"),
    "bad": ("#b3361c", "#f08a70"),
    "s1": ("#0072b2", "#56b4e9"),
    "s2": ("#d55e00", "#f0894a"),
    "s3": ("#009e73", "#43c59e"),
    "s4": ("#b3568d", "#dd8fc0"),
    "s5": ("#b98500", "#e6b93c"),
    "s6": ("#4aa3d8", "#9fd0f0"),
    "heat": ("#0072b2", "#56b4e9"),
    "heat-bad": ("#d55e00", "#f0894a"),
}
LIGHT = {name: light for name, (light, _) in _PAIRS.items()}
DARK = {name: dark for name, (_, dark) in _PAIRS.items()}
SERIES = ("s1", "s2", "s3", "s4", "s5", "s6")


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


_COLOURS = f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
"""
_RULES = """\
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1080px; margin: 0 auto; padding: 0 20px 80px; }
header.top { padding: 52px 0 8px; }
.eyebrow { margin: 0; color: var(--muted); font-size: 13px; letter-spacing: .09em; text-transform: uppercase; }
h1 { margin: 4px 0 10px; font-size: clamp(28px, 5vw, 42px); line-height: 1.12; letter-spacing: -.02em;
  font-weight: 680; }
h2 { margin: 0 0 4px; font-size: 23px; letter-spacing: -.01em; line-height: 1.25; }
h3 { margin: 30px 0 8px; font-size: 16px; }
p { margin: 0 0 12px; max-width: 74ch; }
.lead { color: var(--muted); margin-bottom: 20px; }
section { padding-top: 52px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; padding: 14px 0; border-bottom: 1px solid var(--line);
  font-size: 14px; }
nav a, a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
code, pre { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { margin: 10px 0 0; padding: 11px 14px; background: var(--soft); border-radius: 8px; overflow-x: auto; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 230px), 1fr)); gap: 14px;
  margin: 22px 0 0; }
.wide { grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px;
  min-width: 0; }
.card pre { font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
.card h3 { margin: 0 0 8px; display: flex; flex-wrap: wrap; align-items: center; gap: 8px; }
.card p:last-child { margin-bottom: 0; }
.figure-value { font-size: 34px; line-height: 1.1; font-weight: 660; letter-spacing: -.02em; margin: 2px 0 4px; }
.card .label, .note { color: var(--muted); font-size: 13.5px; margin: 0; } .card .label + p { margin-top: 8px; }
.note { margin-top: 8px; max-width: 84ch; } .note code { overflow-wrap: anywhere; }
.pill { display: inline-block; padding: 1px 10px; border-radius: 99px; font-size: 12.5px; font-weight: 600;
  white-space: nowrap; }
.pill.good { background: var(--good-soft); color: var(--good); } .pill.hold { background: var(--hold-soft);
  color: var(--hold); }
.pill.plain { background: var(--soft); color: var(--muted); }
.scroll { overflow-x: auto; margin: 14px 0 0; -webkit-overflow-scrolling: touch; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { padding: 8px 12px 8px 0; text-align: left; vertical-align: middle; border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 560; font-size: 12.5px; white-space: nowrap; vertical-align: bottom; }
td code { white-space: nowrap; } td.number, th.number { text-align: right; white-space: nowrap; }
tbody tr:last-child td { border-bottom: 0; }
td .quiet, .quiet { color: var(--muted); font-size: 12.5px; }
tr.group td { padding-top: 18px; font-weight: 640; border-bottom: 0; }
.strip { display: block; width: 190px; height: 18px; } .bar { display: block; width: 150px; height: 10px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 18px;
  margin-top: 16px; }
figure { margin: 0; min-width: 0; } figure svg, figure img { display: block; max-width: 100%; height: auto; }
.figures svg { width: 100%; height: auto; }
figcaption { color: var(--muted); font-size: 13.5px; margin-top: 6px; }
.confusion { width: 100%; height: auto; display: block; }
.confusion text { fill: var(--ink); font-size: 9.5px; } .confusion .axis { fill: var(--muted); font-size: 11px; }
.confusion .axis.zero { fill: var(--bad); font-weight: 700; }
.confusion .cell { fill: var(--heat); } .confusion .cell.off { fill: var(--heat-bad); }
.confusion .rule { stroke: var(--line); stroke-width: .6; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(142px, 1fr)); gap: 12px; margin-top: 16px; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px;
  font-size: 12.5px;
  line-height: 1.35; min-width: 0; overflow-wrap: anywhere; }
.tile img { margin: 0 auto 8px; }
.thumb { display: block; width: 84px; height: 84px; object-fit: contain; background: #fff; border-radius: 8px; }
.true { color: var(--good); } .false { color: var(--bad); }
.explanations { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 14px;
  margin-top: 16px; }
.explanations .card { padding: 12px; display: grid; grid-template-columns: repeat(3, 1fr); gap: 10px; font-size: 12.5px;
  line-height: 1.35; }
.explanations .card > div { min-width: 0; overflow-wrap: anywhere; }
.explanations img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #fff;
  border-radius: 8px; margin-bottom: 6px; }
.queries { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 470px), 1fr)); gap: 0 40px; }
.query { display: grid; grid-template-columns: 118px 1fr; gap: 8px 16px; align-items: center; padding: 11px 0;
  border-bottom: 1px solid var(--line); min-width: 0; }
.query.picture { grid-template-columns: 84px 1fr; }
.query .question { min-width: 0; overflow-wrap: anywhere; font-weight: 600; font-size: 14.5px; line-height: 1.35; }
.query .question .quiet { font-weight: 400; display: block; } .query .texts { margin-top: 7px; }
.answers { display: flex; flex-wrap: wrap; gap: 8px; }
.answers .thumb { width: 62px; height: 62px; border: 1px solid var(--line); }
.answers .right { outline: 3px solid var(--good); outline-offset: 1px; border-color: transparent; }
.texts { margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: 6px; }
.texts li { padding: 3px 10px; border-radius: 8px; background: var(--soft); font-size: 13.5px;
  overflow-wrap: anywhere; }
.texts li.right { background: var(--good-soft); color: var(--good); font-weight: 600; }
.sheet { width: 100%; border-radius: 10px; border: 1px solid var(--line); background: #fff; }
details { border: 1px solid var(--line); border-radius: 10px; padding: 0 14px; margin-top: 10px;
  background: var(--card); }
summary { cursor: pointer; padding: 10px 0; font-size: 14px; } details > :last-child { margin-bottom: 14px; }
details pre { max-height: 420px; overflow: auto; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 4px 16px; margin: 0; font-size: 14px; }
dt { color: var(--muted); } dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
footer { margin-top: 60px; padding-top: 16px; border-top: 1px solid var(--line); color: var(--muted);
  font-size: 13px; }
@media (max-width: 560px) {
  main { padding: 0 14px 60px; } header.top { padding-top: 30px; } section { padding-top: 40px; }
  .query { grid-template-columns: 1fr; } .answers .thumb { width: 54px; height: 54px; }
  .broad table { min-width: 1100px; } .broad td { vertical-align: top; }
  .tiles { grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); gap: 8px; }
  dl { grid-template-columns: 1fr; }
  dt { margin-top: 6px; }
}
@media print { body { background: #fff; } nav { display: none; } .card, .tile, .query, tr { break-inside: avoid; } }
"""
CSS = _COLOURS + _RULES
