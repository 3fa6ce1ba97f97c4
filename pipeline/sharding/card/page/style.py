"""The CSS of the data card, in addition to the CSS of all pages."""

from __future__ import annotations

CSS = """
:root { --train: #2f6f8f; --val: #c98a1b; --test: #c0492f; }
@media (prefers-color-scheme: dark) { :root { --train: #66b1d6; --val: #e9b154; --test: #f08a70; } }
.chart { width: 100%; height: auto; display: block; }
.chart text { fill: var(--muted); font-size: 10.5px; font-family: inherit; }
.chart .rule { stroke: var(--line); stroke-width: .8; }
.chart .bar-fill { fill: var(--s1); } .chart .bar-fill:hover { fill: var(--s2); }
.chart .area-fill { fill: var(--s1); fill-opacity: .16; }
.chart .line { fill: none; stroke: var(--s1); stroke-width: 1.8; stroke-linejoin: round; }
.curve { max-width: 620px; margin-top: 16px; }
.card .chart { margin-top: 6px; }
.top .cards { grid-template-columns: repeat(auto-fill, minmax(min(100%, 180px), 1fr)); }
.share { display: flex; height: 14px; border-radius: 7px; overflow: hidden; background: var(--soft); gap: 1px; }
.share > span { display: block; min-width: 1px; }
.share .train, .legend .train { background: var(--train); } .share .val, .legend .val { background: var(--val); }
.share .test, .legend .test { background: var(--test); } .share .all { background: var(--s1); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 20px; margin: 12px 0 0; font-size: 14px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; }
.balance { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 470px), 1fr)); gap: 3px 36px;
  margin-top: 16px; }
.balance .row { display: grid; grid-template-columns: 150px 1fr 58px; gap: 12px; align-items: center; font-size: 13.5px;
  min-width: 0; }
.balance .row .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.balance .row .count { text-align: right; color: var(--muted); }
.balance .share { height: 10px; border-radius: 5px; background: none; }
.kinds .row { grid-template-columns: minmax(180px, 1.6fr) 1fr 58px; }
.sheets { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); gap: 12px;
  margin-top: 16px; }
.sheets .card { padding: 10px 14px 12px; }
.sheets h3 { font-size: 14.5px; margin: 0 0 8px; overflow-wrap: anywhere; }
.sheets h3 .quiet { font-weight: 400; }
.pics { display: grid; grid-template-columns: repeat(8, 1fr); gap: 6px; }
.pic { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: #fff; border-radius: 6px 6px 0 0;
  border-bottom: 3px solid var(--train); min-width: 0; }
.pic.val { border-color: var(--val); } .pic.test { border-color: var(--test); }
.examples { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 12px;
  margin-top: 16px; }
.examples .card { display: grid; grid-template-columns: 76px 1fr; gap: 14px; padding: 12px; font-size: 13.5px;
  line-height: 1.4; }
.examples .card > div { min-width: 0; overflow-wrap: anywhere; }
.examples ul { margin: 4px 0 0; padding: 0; list-style: none; } .examples li { margin: 0 0 3px; }
.examples .dropped { color: var(--muted); text-decoration: line-through; }
.names { columns: 2 320px; column-gap: 36px; margin: 12px 0 0; padding: 0; list-style: none; font-size: 13px; }
.names li { overflow-wrap: anywhere; break-inside: avoid; margin-bottom: 5px; }
td.path { overflow-wrap: anywhere; }
@media (max-width: 560px) { .pics { grid-template-columns: repeat(4, 1fr); }
  .balance .row { grid-template-columns: 110px 1fr 48px; } .kinds .row { grid-template-columns: 1fr 60px 48px; } }
"""
