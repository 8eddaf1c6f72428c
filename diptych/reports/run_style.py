"""How the page of `diptych report` looks: light or dark as the reader's system is, from telephones up."""

STYLE = """:root {
  --paper: #faf9f7; --panel: #ffffff; --ink: #22252b; --quiet: #6b7078; --line: #e4e1db; --grid: #ece9e3;
  --accent: #2f6f8f; --good: #2f7d4f; --warm: #a5622a; --warm-paper: #fbf3ea;
  --c0: #2f6f8f; --c1: #c26a21; --c2: #4b8b4a; --c3: #8a5aa8; --c4: #c24a62; --c5: #8a7a1e;
  --c6: #3f9a94; --c7: #6d7480;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181c; --panel: #1e2126; --ink: #e6e4df; --quiet: #9aa0a8; --line: #31353c; --grid: #2a2e34;
    --accent: #7fb8d4; --good: #7cc49a; --warm: #dba56f; --warm-paper: #2a241d;
    --c0: #7fb8d4; --c1: #e29a5c; --c2: #8cc98a; --c3: #bf9bda; --c4: #e88aa0; --c5: #cdbd62;
    --c6: #7ccfc8; --c7: #a9b0bb;
  }
}
* { box-sizing: border-box; margin: 0; }
body { background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif;
  padding: 3rem 1.25rem 4rem; }
main { max-width: 68rem; margin: 0 auto; }
.brand { color: var(--quiet); font-size: 0.85rem; letter-spacing: 0.02em; }
h1 { font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.02em; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 3rem 0 0.9rem; }
h2:has(+ .hint) { margin-bottom: 0.15rem; }
h3 { font-size: 0.98rem; font-weight: 600; }
.lead { font-size: 1.1rem; color: var(--quiet); margin-top: 0.6rem; }
.lead strong { color: var(--ink); font-weight: 600; }
.hint { color: var(--quiet); font-size: 0.9rem; margin-bottom: 0.9rem; }
code, pre { font: 0.86rem/1.6 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.progress { height: 8px; border-radius: 4px; background: var(--line); margin-top: 1.1rem; overflow: hidden; }
.progress i { display: block; height: 100%; background: var(--accent); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: 1px; margin-top: 1.6rem;
  background: var(--line); border: 1px solid var(--line); border-radius: 12px; overflow: hidden; }
.tiles div { background: var(--panel); padding: 0.9rem 1.1rem; }
.tiles dt { color: var(--quiet); font-size: 0.85rem; }
.tiles dd { font-size: 1.5rem; font-weight: 600; line-height: 1.35; letter-spacing: -0.01em;
  font-variant-numeric: tabular-nums; }
.tiles small { color: var(--quiet); font-size: 0.8rem; line-height: 1.35; display: block; }
.notice, .verdict { border-radius: 12px; padding: 0.85rem 1.1rem; margin-top: 0.9rem; border: 1px solid var(--line);
  background: var(--panel); }
.notice, .data-bound { background: var(--warm-paper); border-color: var(--warm); }
.data-bound strong { color: var(--warm); } .compute-bound strong { color: var(--good); }
.charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1rem; }
.chart, .panel { background: var(--panel); border: 1px solid var(--line); border-radius: 12px; }
.chart { padding: 1rem 1.2rem 0.8rem; }
.chart figcaption { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: 0 0.75rem; align-items: baseline; }
.chart figcaption p { text-align: right; font-size: 1.02rem; font-variant-numeric: tabular-nums; }
.chart figcaption b { font-weight: 600; margin-left: 0.75rem; white-space: nowrap; }
.chart figcaption small { grid-column: 1 / -1; color: var(--quiet); font-size: 0.8rem; }
.plot { display: grid; grid-template-columns: 3.4rem minmax(0, 1fr); margin-top: 0.7rem; font-size: 0.75rem;
  color: var(--quiet); font-variant-numeric: tabular-nums; }
.y, .area { position: relative; height: 11rem; }
.y span { position: absolute; right: 0.6rem; transform: translateY(50%); white-space: nowrap; line-height: 1; }
.x { position: relative; grid-column: 2; height: 1.5rem; }
.x span { position: absolute; top: 0.5rem; transform: translateX(-50%); white-space: nowrap; line-height: 1; }
.x span:first-child { transform: none; } .x span.end { transform: translateX(-100%); }
svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
svg path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; stroke-linecap: round; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .mark { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 3 4; }
svg .line { stroke-width: 2; } svg .raw { stroke-width: 1; opacity: 0.3; } svg .dot { stroke-width: 7; }
svg .band { fill: transparent; stroke: none; } svg .band:hover { fill: var(--ink); fill-opacity: 0.06; }
span.mark { position: absolute; right: 0; margin-top: 0.25rem; line-height: 1.2; padding: 0 0.2rem;
  background: var(--panel); border-radius: 3px; }
COLOURS
.key { display: inline-block; width: 0.8rem; height: 0.8rem; border-radius: 3px; margin-right: 0.55rem;
  vertical-align: -0.05rem; }
.panel { padding: 0.4rem 1.2rem; }
.recipe { columns: 2; column-gap: 2.5rem; }
pre { padding: 0.6rem 0; white-space: pre-wrap; overflow-wrap: anywhere; break-inside: avoid; }
.captions { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: 1rem; }
.captions .panel { padding: 0; overflow: hidden; }
.captions img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--grid); }
.captions dl { display: grid; grid-template-columns: auto minmax(0, 1fr); gap: 0.35rem 0.8rem;
  padding: 0.85rem 1rem 1rem; font-size: 0.93rem; line-height: 1.4; overflow-wrap: anywhere; }
.captions dt { color: var(--quiet); font-size: 0.8rem; line-height: 1.65; }
.captions b { font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 0.93rem; }
th, td { padding: 0.5rem 0 0.5rem 1.4rem; text-align: right; white-space: nowrap; font-weight: 400; }
th:first-child { text-align: left; padding-left: 0; font-weight: 500; }
thead th { color: var(--quiet); font-size: 0.82rem; font-weight: 500; }
tbody tr { border-top: 1px solid var(--line); }
h1 + .panel { margin-top: 1.6rem; }
details { margin-top: 1.5rem; } summary { cursor: pointer; color: var(--accent); margin-bottom: 0.75rem; }
footer { margin-top: 3rem; color: var(--quiet); font-size: 0.8rem; }
@media (max-width: 48rem) {
  .charts { grid-template-columns: minmax(0, 1fr); }
  .recipe { columns: 1; }
}
@media (max-width: 40rem) {
  body { padding: 1.75rem 1rem 3rem; }
  h1 { font-size: 1.5rem; } .lead { font-size: 1rem; }
  .captions { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0.7rem; }
  .captions dl { grid-template-columns: minmax(0, 1fr); gap: 0 0; padding: 0.6rem 0.75rem 0.8rem; }
  .captions dd + dt { margin-top: 0.4rem; }
  .tiles { grid-template-columns: repeat(2, 1fr); } .tiles dd { font-size: 1.25rem; }
  .chart { padding: 0.9rem 0.9rem 0.6rem; } .plot { grid-template-columns: 2.9rem minmax(0, 1fr); }
}
@media print { .chart, .panel, .tiles { break-inside: avoid; } }
""".replace(
    "COLOURS",
    "\n".join(
        f"svg .c{number} {{ stroke: var(--c{number}); }} b.c{number} {{ color: var(--c{number}); }} "
        f".key.c{number} {{ background: var(--c{number}); }}"
        for number in range(8)
    ),
)
