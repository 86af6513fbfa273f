// The page at /: what is running, as of this moment. Server-rendered, no script, readable without any style.
import type { FastifyInstance } from 'fastify';
import { Html, html } from '../html.ts';
import type { CaptureSummary, GroupStatus, Status, TopicStatus } from '../status.ts';

const maxRows = 500;

const style = new Html(`
:root { color-scheme: light dark; --ink: #1d2733; --quiet: #66717e; --line: #dfe4e9; --paper: #fbfcfd; --mark: #0b6e6e }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e3e8ee; --quiet: #93a0ae; --line: #2c3642; --paper: #12181f; --mark: #5cc8c0 } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 3rem auto; padding: 0 1.25rem }
h1 { font-size: 1.5rem; margin: 0 } h1 small { color: var(--quiet); font-weight: 400; font-size: 1rem }
h2 { font-size: 1rem; margin: 2.5rem 0 .5rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; margin: 1.5rem 0 }
dt { color: var(--quiet) } dd { margin: 0; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
th, td { text-align: right; padding: .4rem 0 .4rem 1.5rem; border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums }
th { color: var(--quiet); font-weight: 400 }
th:first-child, td:first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere }
code { font: .92em ui-monospace, monospace } a { color: var(--mark) } p, footer { color: var(--quiet) }
footer { margin-top: 3rem }`);

/** `undefined` from `readStatus`: still starting. */
export function statusPageRoutes(app: FastifyInstance, readStatus: () => Promise<Status | undefined>): void {
  app.get('/', async (_request, reply) => {
    const status = await readStatus();
    reply.type('text/html; charset=utf-8');
    reply.header('content-security-policy', "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'");
    reply.header('cache-control', 'no-store');
    return renderPage(status).text;
  });
}

export function renderPage(status: Status | undefined): Html {
  return html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Millrace</title>
<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="10"><style>${style}</style></head>
<body>${status ? body(status) : html`<h1>Millrace</h1><p>is starting.</p>`}
<footer><a href="/metrics">metrics</a> · <a href="/readyz">readiness</a></footer></body></html>
`;
}

function body(status: Status): Html {
  return html`<h1>Millrace <small>${status.version}</small></h1>
<dl>
<dt>Kafka</dt><dd><code>${status.kafka}</code></dd>
<dt>Database</dt><dd>${status.database}, ${formatBytes(status.databaseBytes)}</dd>
<dt>Running since</dt><dd>${formatTime(status.startedAt)}</dd>
</dl>
<h2>Topics</h2>
${status.topics.length === 0 ? html`<p>None yet. The first record that is sent makes one.</p>` : topicTable(status.topics)}
<h2>Consumer groups</h2>
${status.groups.length === 0 ? html`<p>None yet.</p>` : groupTable(status.groups)}
<h2>Captures</h2>
${status.captures.length === 0 ? html`<p>None.</p>` : captureTable(status.captures)}`;
}

function topicTable(topics: readonly TopicStatus[]): Html {
  return html`<table><thead><tr><th>Topic</th><th>Partitions</th><th>Records</th><th>Size</th></tr></thead><tbody>
${topics.slice(0, maxRows).map(
  topic => html`<tr><td>${topic.name}</td><td>${formatCount(topic.partitions)}</td>
<td>${formatCount(topic.records)}</td><td>${formatBytes(topic.bytes)}</td></tr>`,
)}</tbody></table>${andMore(topics.length)}`;
}

function groupTable(groups: readonly GroupStatus[]): Html {
  return html`<table><thead><tr><th>Group</th><th>State</th><th>Members</th><th>Lag</th></tr></thead><tbody>
${groups.slice(0, maxRows).map(
  group => html`<tr><td>${group.id}</td><td>${group.state}</td>
<td>${formatCount(group.members)}</td><td>${formatCount(group.lag)}</td></tr>`,
)}</tbody></table>${andMore(groups.length)}`;
}

function captureTable(captures: readonly CaptureSummary[]): Html {
  return html`<table><thead><tr><th>Capture</th><th>State</th><th>Tables</th><th>Records</th><th>Lag</th><th>WAL held back</th></tr></thead><tbody>
${captures.slice(0, maxRows).map(
  capture => html`<tr><td>${capture.name}${captureNotes(capture)}</td><td>${capture.state}</td>
<td>${formatCount(capture.tables.length)}</td><td>${formatCount(capture.records)}</td>
<td>${(capture.lagMs / 1000).toFixed(1)} s</td><td>${capture.slot ? formatBytes(capture.slot.retainedBytes) : '–'}</td></tr>`,
)}</tbody></table>${andMore(captures.length)}`;
}

function captureNotes({ reason, hint, notices }: CaptureSummary): Html {
  const all = notices.map(notice => `${notice.table}: ${notice.reason}; ${notice.hint}`);
  if (reason !== undefined) all.unshift(hint === undefined ? reason : `${reason}; ${hint}`);
  return html`${all.map(text => html`<br><small>${text}</small>`)}`;
}

const andMore = (rows: number): Html =>
  rows > maxRows ? html`<p>and ${formatCount(rows - maxRows)} more</p>` : html``;

const formatCount = (value: number | bigint): string => value.toLocaleString('en-US');
const formatTime = (value: Date): string => `${value.toISOString().slice(0, 19).replace('T', ' ')} UTC`;

export function formatBytes(bytes: bigint): string {
  let value = Number(bytes);
  for (const unit of ['B', 'KiB', 'MiB', 'GiB']) {
    if (value < 1024) return `${unit === 'B' ? value : value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
  return `${value.toFixed(1)} TiB`;
}
