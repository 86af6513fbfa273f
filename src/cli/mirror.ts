// `millrace plan NAME`, `cutover NAME` and `rollback NAME`: what is ready for a cut-over of a mirror, and the cut-over and the
// way back, asked of the running Millrace over HTTP.
import { parseArgs } from 'node:util';
import { messageOf } from '../runtime/errors.ts';
import { ask, bad, print } from './http-api.ts';

interface Told {
  readonly ready: boolean;
  readonly findings: readonly {
    readonly level: 'blocks' | 'note';
    readonly topic?: string;
    readonly message: string;
  }[];
  readonly topics: readonly {
    readonly topic: string;
    readonly targetTopic: string;
    readonly primary: 'here' | 'target';
    readonly ready: boolean;
    readonly lag: number;
    readonly lagMs: number;
    readonly recordsPerSecond: number;
    readonly secondsToGo?: number;
    readonly offsets: string;
  }[];
  readonly groups: readonly {
    readonly group: string;
    readonly topic: string;
    readonly state: string;
    readonly partitions: number;
    readonly synced: number;
    readonly membersHere: number;
  }[];
}

export const mirrorCommands = ['plan', 'cutover', 'rollback'] as const;
export type MirrorCommand = (typeof mirrorCommands)[number];

export const mirrorHelp = `Usage: millrace plan NAME [--topic TOPIC] [--http HOST:PORT]
       millrace cutover NAME [--topic TOPIC] [--timeout-ms N] [--http HOST:PORT]
       millrace rollback NAME [--topic TOPIC] [--timeout-ms N] [--http HOST:PORT]

plan      says what of the mirror NAME is ready for a cut-over and what is not; ends with 0 where all is, and with 1 otherwise
cutover   from now on the target takes what is produced here to the mirror's topics; refuses unless the plan is ready
rollback  this Millrace takes it again

  --http        of the running Millrace; 127.0.0.1:8080
  --topic       one topic only
  --timeout-ms  how long producers may be held; if that is not enough, all stays as it was; 10000
`;

/** Resolves to the exit code. Throws an OperationalError where it cannot be done. */
export async function mirrorCommand(command: MirrorCommand, argv: readonly string[]): Promise<number> {
  const { positionals, values } = read(command, argv);
  const [name] = positionals;
  if (name === undefined || positionals.length > 1) throw bad('it is not said which mirror', 'give its name');
  const { topic, http } = values;
  const url = `http://${http}/api/mirrors/${encodeURIComponent(name)}/${command}`;
  if (command === 'plan') {
    const plan = await ask<Told>(topic === undefined ? url : `${url}?topic=${encodeURIComponent(topic)}`);
    printPlan(plan);
    return plan.ready ? 0 : 1;
  }
  const timeoutMs = Number(values['timeout-ms']);
  printPlan(await ask<Told>(url, { timeoutMs, ...(topic === undefined ? {} : { topic }) }));
  return 0;
}

function read(command: MirrorCommand, argv: readonly string[]) {
  try {
    return parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        http: { type: 'string', default: '127.0.0.1:8080' },
        topic: { type: 'string' },
        'timeout-ms': { type: 'string', default: '10000' },
      },
    });
  } catch (error) {
    throw bad(messageOf(error), `see: millrace ${command} --help`);
  }
}

function printPlan({ ready, topics, groups, findings }: Told): void {
  for (const { topic, targetTopic, primary, lag, lagMs, offsets, recordsPerSecond, secondsToGo, ...rest } of topics) {
    const state = primary === 'target' ? 'produced in the target' : rest.ready ? 'ready' : 'not ready';
    const left = secondsToGo === undefined ? '' : `, ${secondsToGo} s to go`;
    const pace = `${lag} records, ${lagMs} ms behind${left}; ${recordsPerSecond} records/s`;
    print(`topic ${topic} = ${targetTopic}: ${state}; ${pace}; offsets ${offsets}`);
  }
  for (const { group, topic, state, partitions, synced, membersHere } of groups) {
    print(`group ${group}, topic ${topic}: ${state}, ${synced} of ${partitions} offsets; ${membersHere} members here`);
  }
  for (const { level, topic, message } of findings) {
    print(`${level === 'blocks' ? 'BLOCKS' : 'note'}  ${topic === undefined ? '' : `${topic}: `}${message}`);
  }
  print(ready ? 'ready' : 'not ready');
}
