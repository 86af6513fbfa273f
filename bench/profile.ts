// npm run profile -- <scenario> [--seconds N] [--set KEY=VALUE]: loads Millrace with a scenario and writes where its
// JavaScript thread spends the time: a flame graph in bench/results/profile-<scenario>.svg and, for Chrome's or VS
// Code's tools, .cache/bench/<scenario>.cpuprofile; prints the functions with most time of their own. The profile is
// taken by the server itself, over its /debug/cpu-profile.
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { buildLibrdkafkaClient } from './clients/librdkafka.ts';
import { Millrace } from './peers/millrace.ts';
import { findScenarios } from './scenario.ts';
import { type Frame, flameGraph } from './svg.ts';

interface ProfileNode {
  readonly id: number;
  readonly callFrame: { readonly functionName: string; readonly url: string; readonly lineNumber: number };
  readonly children?: readonly number[];
}
interface CpuProfile {
  readonly nodes: readonly ProfileNode[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seconds: { type: 'string', default: '8' }, set: { type: 'string', multiple: true, default: [] } },
});
const seconds = Number(values.seconds);
const found = findScenarios(positionals)[0];
if (!found) throw new Error('usage: npm run profile -- <scenario> [--seconds N] [--set KEY=VALUE]');
const scenario = { ...found, seconds: seconds + 1 };

buildLibrdkafkaClient();
const directory = mkdtempSync(join(tmpdir(), 'millrace-bench-'));
chmodSync(directory, 0o711);
const millrace = new Millrace({ directory, settings: ['profiling=true', ...values.set] });
try {
  await millrace.start();
  await millrace.prepare(scenario);
  await millrace.measure({ ...scenario, seconds: 3 });
  const profiling = takeProfile(millrace.http, seconds);
  // What is read once may be read before the profile is full: then it is read again.
  let again = true;
  const working = (async () => {
    while (again) console.log(await millrace.measure(scenario));
  })();
  const profile = await profiling;
  again = false;
  await working;
  write(profile);
} finally {
  await millrace.stop();
  rmSync(directory, { recursive: true, force: true });
}

async function takeProfile(http: string, duration: number): Promise<CpuProfile> {
  const answer = await fetch(`${http}/debug/cpu-profile?seconds=${duration}`);
  if (!answer.ok) throw new Error(`no profile: ${answer.status} ${await answer.text()}`);
  return (await answer.json()) as CpuProfile;
}

function write(profile: CpuProfile): void {
  const results = fileURLToPath(new URL('./results', import.meta.url));
  mkdirSync(results, { recursive: true });
  const path = join(results, `profile-${scenario.name}`);
  const own = ownTimes(profile);
  const all = [...own.values()].reduce((sum, time) => sum + time, 0);
  const idle = profile.nodes
    .filter(({ callFrame }) => callFrame.functionName === '(idle)')
    .reduce((sum, { id }) => sum + (own.get(id) ?? 0), 0);
  const busy = `${(((all - idle) / all) * 100).toFixed(0)} % of ${(all / 1e6).toFixed(1)} s busy`;
  const cache = fileURLToPath(new URL('../.cache/bench', import.meta.url));
  writeFileSync(join(cache, `${scenario.name}.cpuprofile`), JSON.stringify(profile));
  writeFileSync(
    `${path}.svg`,
    flameGraph(`${scenario.name}: Millrace's JavaScript thread, ${busy}`, frames(profile, own)),
  );
  console.log(`${busy}\n${topFunctions(profile, own, all - idle)}\n${path}.svg`);
}

/** Microseconds by node. */
function ownTimes({ samples, timeDeltas }: CpuProfile): Map<number, number> {
  const own = new Map<number, number>();
  samples.forEach((id, i) => {
    own.set(id, (own.get(id) ?? 0) + timeDeltas[i]!);
  });
  return own;
}

function nameOf({ callFrame: { functionName, url, lineNumber } }: ProfileNode): string {
  const file = url.replace(/^.*\/(dist|node_modules)\//, '').replace(/^node:/, '');
  return `${functionName || '(anonymous)'}${file ? ` ${file}:${lineNumber + 1}` : ''}`;
}

/** The call tree, with callees of one name under one caller joined, and without the time nothing was done. */
function frames({ nodes }: CpuProfile, own: ReadonlyMap<number, number>): Frame {
  const byId = new Map(nodes.map(node => [node.id, node]));
  const build = (name: string, list: readonly ProfileNode[]): Frame => {
    const groups = new Map<string, ProfileNode[]>();
    for (const child of list.flatMap(({ children = [] }) => children).map(id => byId.get(id)!)) {
      if (child.callFrame.functionName === '(idle)') continue;
      const group = groups.get(nameOf(child));
      if (group) group.push(child);
      else groups.set(nameOf(child), [child]);
    }
    const children = [...groups].map(([childName, group]) => build(childName, group)).sort((a, b) => b.value - a.value);
    const self = list.reduce((sum, { id }) => sum + (own.get(id) ?? 0), 0);
    return { name, value: self + children.reduce((sum, { value }) => sum + value, 0), children };
  };
  return build('all', [nodes[0]!]);
}

function topFunctions({ nodes }: CpuProfile, own: ReadonlyMap<number, number>, busy: number): string {
  const byName = new Map<string, number>();
  for (const node of nodes) byName.set(nameOf(node), (byName.get(nameOf(node)) ?? 0) + (own.get(node.id) ?? 0));
  return [...byName]
    .filter(([name]) => name !== '(idle)')
    .sort((a, b) => b[1] - a[1])
    .slice(0, 25)
    .map(([name, time]) => `${((time / busy) * 100).toFixed(1).padStart(5)} %  ${name}`)
    .join('\n');
}
