// Writes what a run measured as Markdown with plots: node --import tsx bench/report.ts FILE.json… [NAME], into
// bench/results/NAME.md. Every figure comes from the files; where a system has none there is none. Of several files, runs of
// different scenarios, the machine's lines are the first's.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Growth } from './growth.ts';
import type { MemorySample } from './memory.ts';
import type { Metric, Result } from './metrics.ts';
import { bars, lines, type Panel, readable } from './svg.ts';
import { boundOf, judge } from './targets.ts';

const resultsDirectory = fileURLToPath(new URL('./results', import.meta.url));

interface Meta {
  readonly command: string;
  /** The one that is thrown away included, where one is. */
  readonly rounds: number;
  readonly kept?: number;
  readonly systems: Readonly<Record<string, string>>;
  /** Why a peer that was asked for is not in the run. */
  readonly absent: Readonly<Record<string, string>>;
  readonly settings: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly [machine: string]: unknown;
}

type Cell = (of: (metric: Metric) => Result | undefined) => string;

const spread =
  (metric: Metric): Cell =>
  of => {
    const found = of(metric);
    return found ? `${readable(found.median)} (${readable(found.min)}–${readable(found.max)})` : '';
  };
const medianOf =
  (metric: Metric): Cell =>
  of => {
    const found = of(metric);
    return found ? readable(found.median) : '';
  };
const triple =
  (...metrics: Metric[]): Cell =>
  of =>
    metrics
      .map(metric => of(metric))
      .map(found => (found ? readable(found.median) : '–'))
      .join(' / ');

const throughputColumns: readonly [string, Cell][] = [
  ['records/s', spread('records_per_s')],
  ['changes/s', spread('changes_per_s')],
  ['deliveries/s', spread('deliveries_per_s')],
  ['events sent, in s', triple('sent_events', 'sending_s')],
  ['lost / repeated', triple('lost_events', 'repeated_events')],
  ['with a snapshot held / without', medianOf('rate_ratio')],
  ['all back, ms', spread('recovered_ms')],
  ['end to end ms: p50', spread('p50_ms')],
  ['p95', medianOf('p95_ms')],
  ['p99', spread('p99_ms')],
  ['p99.9', medianOf('p999_ms')],
  ['MB/s', medianOf('mb_per_s')],
  [
    'CPU s per million: broker / Postgres / client',
    triple('broker_cpu_s_per_million', 'postgres_cpu_s_per_million', 'client_cpu_s_per_million'),
  ],
  ['WAL bytes per record, per payload byte', triple('wal_bytes_per_record', 'wal_bytes_per_byte')],
  [
    'resident MB: broker / Postgres without, with shared buffers',
    triple('broker_rss_mb', 'postgres_own_mb', 'postgres_rss_mb'),
  ],
  ['resident MB without Postgres: at most', medianOf('peak_rss_mb')],
  ['while the transaction is in flight', medianOf('in_flight_rss_mb')],
  ['resident MB', medianOf('rss_mb')],
  ['behind the last commit, ms', medianOf('behind_ms')],
  ['resident MB in all', medianOf('total_rss_mb')],
  ['disk bytes per record', medianOf('disk_bytes_per_record')],
  ['start to first acknowledged record, ms', spread('start_ms')],
];
const latencyColumns: readonly [string, Cell][] = [
  ['acknowledged ms: p50', spread('ack_p50_ms')],
  ['p95', medianOf('ack_p95_ms')],
  ['p99', spread('ack_p99_ms')],
  ['end to end ms: p50', spread('p50_ms')],
  ['p95', medianOf('p95_ms')],
  ['p99', spread('p99_ms')],
  ['p99.9', medianOf('p999_ms')],
];

export function writeReport(results: readonly Result[], meta: Meta, name: string): string {
  mkdirSync(resultsDirectory, { recursive: true });
  const scenarios = [...new Set(results.map(({ scenario }) => scenario))].filter(
    scenario => !/^(memory|growth)/.test(scenario),
  );
  const sections = scenarios.map(scenario => section(results, scenario));
  const plots = plotsOf(results, scenarios);
  for (const [plot, svg] of plots) writeFileSync(join(resultsDirectory, `${name}-${plot}.svg`), svg);
  const kept = meta.kept ?? meta.rounds - 1;
  const text = `# ${name}

${machineLines(meta)}

Medians of ${counted(kept, 'round')}, interleaved over the systems; in parentheses the least and the most.${kept < meta.rounds ? ' One round before was thrown away.' : ''} MB are millions of payload bytes. While one system is measured the processes of the others are stopped.

\`\`\`
${meta.command}
\`\`\`

${targetsTable(results)}

${plots.map(([plot]) => `![${plot}](${name}-${plot}.svg)`).join('\n\n')}

${[...sections, ...growthSection(results, name), ...memorySection(results, name)].join('\n\n')}

## Systems

${Object.entries(meta.systems)
  .map(([system, description]) => `- **${system}**: ${description}`)
  .join('\n')}
${Object.entries(meta.absent)
  .map(([system, reason]) => `- **${system}** could not run here: ${reason}`)
  .join('\n')}

${settingsTables(meta.settings)}
`;
  const path = join(resultsDirectory, `${name}.md`);
  writeFileSync(path, text);
  return path;
}

function targetsTable(results: readonly Result[]): string {
  const inThisRun = new Set(results.map(({ scenario }) => scenario));
  const judgements = judge(results).filter(({ target }) => inThisRun.has(target.scenario));
  if (judgements.length === 0) return 'None of the targets is about a scenario of this run.';
  const lines = judgements.map(({ target, ...judged }) =>
    row([
      target.what,
      target.scenario,
      [target.metric, target.peer ? `${target.difference ? '−' : '÷'} ${target.peer}` : ''].join(' ').trim(),
      boundOf(target),
      judged.value === undefined ? '' : readable(judged.value),
      judged.verdict,
    ]),
  );
  const head = ['target', 'scenario', 'figure', 'bound', 'measured', 'verdict'];
  return `## Targets\n\n${[row(head), row(head.map(() => '---')), ...lines].join('\n')}`;
}

const growthColumns: readonly [string, Cell][] = [
  ['records/s', spread('records_per_s')],
  ['fetch ms, cold: p50 / p99', triple('fetch_cold_p50_ms', 'fetch_cold_p99_ms')],
  ['warm: p50 / p99', triple('fetch_p50_ms', 'fetch_p99_ms')],
  ['÷ first: records/s', medianOf('rate_ratio')],
  ['cold fetch: p50 / p99', triple('fetch_cold_p50_ratio', 'fetch_cold_p99_ratio')],
  ['acknowledged at 5,000/s: p99 ms', medianOf('ack_p99_ms')],
];

function growthSection(results: readonly Result[], name: string): string[] {
  const scenarios = [...new Set(results.map(({ scenario }) => scenario))].filter(one => one.startsWith('growth-'));
  if (scenarios.length === 0) return [];
  const lines = scenarios.map(scenario => {
    const of = (metric: Metric) => results.find(result => result.scenario === scenario && result.metric === metric);
    return row([scenario.replace('growth-', ''), ...growthColumns.map(([, cell]) => cell(of))]);
  });
  const head = ['after, or while', ...growthColumns.map(([title]) => title)];
  return [
    `## growth\n\nOne topic of one partition, 100-byte records: after so many records, then with what goes on beside. Ratios are to the first row: the last step's say how flat it is; from \`at-rest\` on they are to that row.\n\n${growthPlots.map(plot => `![${plot}](${name}-${plot}.svg)`).join('\n\n')}\n\n${[row(head), row(head.map(() => '---')), ...lines].join('\n')}`,
  ];
}

const growthPlots = ['growth-rate', 'growth-fetch'] as const;

export function writeGrowthPlots({ rates, results }: Growth, name: string): void {
  mkdirSync(resultsDirectory, { recursive: true });
  const write = (plot: (typeof growthPlots)[number], svg: string): void =>
    writeFileSync(join(resultsDirectory, `${name}-${plot}.svg`), svg);
  write(
    'growth-rate',
    lines('produced as the topic grows', 'million', 'records/s', [{ name: 'millrace', points: rates }]),
  );
  const series = (metric: Metric, words: string) => ({
    name: words,
    points: results.flatMap(result => {
      const step = /^growth-([\d.]+)M$/.exec(result.scenario);
      return step && result.metric === metric ? [[Number(step[1]), result.median] as const] : [];
    }),
  });
  const fetches = [
    series('fetch_cold_p50_ms', 'cold, p50'),
    series('fetch_cold_p99_ms', 'cold, p99'),
    series('fetch_p50_ms', 'warm, p50'),
    series('fetch_p99_ms', 'warm, p99'),
  ];
  write('growth-fetch', lines('one fetch at a random offset', 'million', 'ms', fetches));
}

function memorySection(results: readonly Result[], name: string): string[] {
  const found = results.filter(({ scenario }) => scenario === 'memory');
  if (found.length === 0) return [];
  const lines = found.map(({ metric, unit, median, min, max }) =>
    row([metric, unit, readable(median), readable(min), readable(max)]),
  );
  const head = [row(['metric', 'unit', 'median', 'least', 'most']), row(['---', '---', '---', '---', '---'])];
  return [
    `## memory\n\nProduced and consumed at full speed, shape after shape. The slope is that of the second half.\n\n![memory](${name}-memory.svg)\n\n${[...head, ...lines].join('\n')}`,
  ];
}

export function writeMemoryPlot(samples: readonly MemorySample[], name: string): void {
  mkdirSync(resultsDirectory, { recursive: true });
  const series = (of: 'broker' | 'postgres', words: string) => ({
    name: words,
    points: samples.map(sample => [sample.minute, sample[of]] as const),
  });
  const plot = lines('resident memory', 'min', 'MB', [series('broker', 'broker'), series('postgres', 'Postgres')]);
  writeFileSync(join(resultsDirectory, `${name}-memory.svg`), plot);
}

function section(results: readonly Result[], scenario: string): string {
  const here = results.filter(result => result.scenario === scenario);
  const systems = [...new Set(here.map(({ system }) => system))];
  const find = (system: string, metric: Metric) =>
    here.find(result => result.system === system && result.metric === metric);
  const isLatency = here.some(({ metric }) => metric === 'ack_p50_ms');
  const columns = (isLatency ? latencyColumns : throughputColumns).filter(([, cell]) =>
    systems.some(system => /\d/.test(cell(metric => find(system, metric)))),
  );
  const has = (wanted: Metric): boolean => here.some(({ metric }) => metric === wanted);
  const ratioOf: Metric = isLatency
    ? 'ack_p50_ms'
    : has('p50_ms')
      ? 'p50_ms'
      : has('records_per_s')
        ? 'records_per_s'
        : 'changes_per_s';
  const own = find('millrace', ratioOf)?.median;
  const head = [
    'system',
    ...columns.map(([title]) => title),
    `Millrace ÷ it${isLatency ? ' (acknowledged, p50)' : ratioOf === 'p50_ms' ? ' (p50)' : ''}`,
  ];
  const body = systems.map(system => {
    const theirs = find(system, ratioOf)?.median;
    const ratio = own === undefined || !theirs || system === 'millrace' ? '' : `${(own / theirs).toFixed(2)} ×`;
    return row([system, ...columns.map(([, cell]) => cell(metric => find(system, metric))), ratio]);
  });
  return `## ${scenario}\n\n${row(head)}\n${row(head.map(() => '---'))}\n${body.join('\n')}`;
}

function plotsOf(results: readonly Result[], scenarios: readonly string[]): [string, string][] {
  const works = [...new Set(scenarios.map(scenario => /^[a-z]+(-(warm|tail|cold))?/.exec(scenario)![0]))];
  return works.flatMap(work => {
    const panels = scenarios
      .filter(scenario => scenario.startsWith(work))
      .flatMap(scenario => panelsOf(results.filter(result => result.scenario === scenario)));
    return panels.length > 0 ? [[work, bars(panels)] as [string, string]] : [];
  });
}

function panelsOf(results: readonly Result[]): Panel[] {
  const panel = (metric: Metric, words: string): Panel[] => {
    const found = results.filter(result => result.metric === metric);
    if (found.length === 0) return [];
    const list = found.map(({ system, median, min, max }) => ({ name: system, value: median, min, max }));
    return [{ title: `${found[0]!.scenario}${words}`, unit: found[0]!.unit, bars: list }];
  };
  const found = (wanted: Metric): boolean => results.some(({ metric }) => metric === wanted);
  return [
    ...panel('records_per_s', ''),
    ...(found('p50_ms') ? [] : panel('changes_per_s', '')),
    ...panel('ack_p99_ms', ', acknowledged, p99'),
    ...panel('p99_ms', ', end to end, p99'),
  ];
}

const notTheMachine = ['command', 'rounds', 'kept', 'systems', 'absent', 'settings'];

function machineLines(meta: Meta): string {
  return Object.entries(meta)
    .filter(([name]) => !notTheMachine.includes(name))
    .map(([name, value]) => `- ${name.replaceAll('_', ' ')}: ${value}`)
    .join('\n');
}

/** Systems on the same Postgres name its settings each; they are shown once. */
function settingsTables(settings: Meta['settings']): string {
  const shown = new Set<string>();
  const tables = Object.entries(settings).map(([system, values]) => {
    const own = Object.entries(values).filter(([name, value]) => {
      const known = name.startsWith('postgres.') && shown.has(`${name} ${value}`);
      shown.add(`${name} ${value}`);
      return !known;
    });
    return `### ${system}\n\n${[row(['setting', 'value']), row(['---', '---']), ...own.map(cells => row(cells))].join('\n')}`;
  });
  return tables.join('\n\n');
}

function merged(first: Meta, next: Meta): Meta {
  return {
    ...first,
    command: `${first.command}\n${next.command}`,
    systems: { ...first.systems, ...next.systems },
    absent: { ...first.absent, ...next.absent },
    settings: { ...first.settings, ...next.settings },
  };
}

const counted = (count: number, noun: string): string => `${count} ${noun}${count === 1 ? '' : 's'}`;

const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const args = process.argv.slice(2);
  const files = args.filter(arg => arg.endsWith('.json'));
  const [name = basename(files[0] ?? '', '.json')] = args.filter(arg => !arg.endsWith('.json'));
  if (files.length === 0) throw new Error('usage: node --import tsx bench/report.ts FILE.json… [NAME]');
  const read = (file: string): unknown => JSON.parse(readFileSync(file, 'utf8'));
  const results = files.flatMap(file => read(file) as Result[]);
  const meta = files.map(file => read(`${file}.meta.json`) as Meta).reduce(merged);
  console.log(writeReport(results, meta, name));
}
