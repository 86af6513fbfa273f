// Two captures of the same changes, event for event and field for field. In records of the transaction topic the tables
// may have any order.
import { type Exact, type ExactNumber, isNumber, parseExact, showExact } from './exact-json.ts';

/** A record, as a reader of its topic gets it. */
export interface CapturedEvent {
  readonly topic: string;
  readonly key: string | null;
  readonly value: string | null;
  readonly headers: readonly (readonly [string, string | null])[];
}

export interface Difference {
  readonly topic: string;
  /** Of the change: c, u, d, t, m; none for tombstones and transactions. */
  readonly operation: string | undefined;
  /** Where in the record: value.after.c_text */
  readonly path: string;
  /** undefined: not there. */
  readonly theirs: Exact | undefined;
  readonly ours: Exact | undefined;
}

export interface Deviation {
  readonly name: string;
  readonly allows: (difference: Difference) => boolean;
}

export interface Comparison {
  readonly events: number;
  readonly differences: readonly Difference[];
  /** Names of deviations that were met. */
  readonly met: ReadonlySet<string>;
}

export function compare(
  theirs: readonly CapturedEvent[],
  ours: readonly CapturedEvent[],
  deviations: readonly Deviation[],
): Comparison {
  const differences: Difference[] = [];
  const met = new Set<string>();
  const take = (found: readonly Difference[]) => {
    for (const difference of found) {
      const deviation = deviations.find(({ allows }) => allows(difference));
      if (deviation === undefined) differences.push(difference);
      else met.add(deviation.name);
    }
  };
  const [theirTopics, ourTopics] = [byTopic(theirs), byTopic(ours)];
  for (const topic of new Set([...theirTopics.keys(), ...ourTopics.keys()])) {
    const all = theirTopics.get(topic) ?? [];
    const [left, right] = [all.filter(saysSomething), ourTopics.get(topic) ?? []];
    const path = '(tombstone without a key)';
    if (left.length < all.length) take([{ topic, operation: 'd', path, theirs: null, ours: undefined }]);
    for (let i = 0; i < Math.max(left.length, right.length); i++) {
      const found = [...differencesOf(topic, left[i], right[i])];
      take(found);
      // One event too many, and nothing after it fits.
      if (left[i] === undefined || right[i] === undefined || found.some(({ path }) => path === 'value.op')) break;
    }
  }
  return { events: theirs.length, differences, met };
}

const saysSomething = ({ key, value }: CapturedEvent): boolean => key !== null || value !== null;

function byTopic(events: readonly CapturedEvent[]): Map<string, CapturedEvent[]> {
  const topics = new Map<string, CapturedEvent[]>();
  for (const event of events) {
    const known = topics.get(event.topic);
    if (known) known.push(event);
    else topics.set(event.topic, [event]);
  }
  return topics;
}

function* differencesOf(
  topic: string,
  theirs: CapturedEvent | undefined,
  ours: CapturedEvent | undefined,
): Generator<Difference> {
  const [left, right] = [theirs && exactEvent(theirs), ours && exactEvent(ours)];
  const operation = operationOf(left ?? right);
  for (const { path, theirs, ours } of walk('', left, right)) {
    yield { topic, operation, path: path.slice(1), theirs, ours };
  }
}

const isObject = (value: Exact | undefined): value is { [name: string]: Exact } =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !isNumber(value);

function operationOf(event: Exact | undefined): string | undefined {
  const value = isObject(event) ? event.value : undefined;
  const payload = isObject(value) && isObject(value.payload) ? value.payload : value;
  return isObject(payload) && typeof payload.op === 'string' ? payload.op : undefined;
}

/** Headers come as an object: the names of a change's are all different. */
function exactEvent({ key, value, headers }: CapturedEvent): Exact {
  const parsed = (text: string | null): Exact => (text === null ? null : parseExact(text));
  return {
    key: parsed(key),
    value: withOrder(parsed(value)),
    headers: Object.fromEntries(headers.map(([name, text]) => [name, headerValue(text)])),
  };
}

/** Debezium counts each logical message as a table of its own, whose name is a Java object's. */
const messageOfDebezium = /LogicalDecodingMessageId@/;

/** How many events of which table, in an order that both have. */
function inOrder(collections: Exact[]): Exact[] {
  const counted = new Map<string, number>();
  for (const entry of collections) {
    const { data_collection: name, event_count: count } = entry as {
      data_collection: string;
      event_count: ExactNumber;
    };
    const table = messageOfDebezium.test(name) ? 'message' : name;
    counted.set(table, (counted.get(table) ?? 0) + Number(`${count.digits}e${count.exponent}`));
  }
  return [...counted].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, count]) => `${name} ${count}`);
}

function withOrder(value: Exact): Exact {
  if (!isObject(value)) return value;
  if (isObject(value.payload)) return { ...value, payload: withOrder(value.payload) };
  return Array.isArray(value.data_collections)
    ? { ...value, data_collections: inOrder(value.data_collections) }
    : value;
}

function headerValue(text: string | null): Exact {
  if (text === null || !/^[[{"]/.test(text)) return text;
  const value = parseExact(text);
  // Kafka Connect writes headers without schemas, whatever the events have.
  return isObject(value) && 'payload' in value && 'schema' in value ? value.payload! : value;
}

function* walk(
  path: string,
  theirs: Exact | undefined,
  ours: Exact | undefined,
): Generator<{ path: string; theirs: Exact | undefined; ours: Exact | undefined }> {
  if (isObject(theirs) && isObject(ours)) {
    const [names, ourNames] = [Object.keys(theirs), Object.keys(ours)];
    for (const name of new Set([...names, ...ourNames])) yield* walk(`${path}.${name}`, theirs[name], ours[name]);
    const shared = (all: string[], other: object) => all.filter(name => name in other).join();
    if (shared(names, ours) !== shared(ourNames, theirs)) {
      yield { path: `${path}.(order)`, theirs: names, ours: ourNames };
    }
    return;
  }
  if (Array.isArray(theirs) && Array.isArray(ours)) {
    for (let i = 0; i < Math.max(theirs.length, ours.length); i++) {
      // A schema's field is known by its name.
      const field = theirs[i] ?? ours[i];
      const name = isObject(field) && typeof field.field === 'string' ? field.field : i;
      yield* walk(`${path}.${name}`, theirs[i], ours[i]);
    }
    return;
  }
  if (showExact(theirs) !== showExact(ours)) yield { path, theirs, ours };
}

export function describe({ topic, operation, path, theirs, ours }: Difference): string {
  const short = (value: Exact | undefined) => showExact(value).slice(0, 300);
  return `${topic} ${operation ?? ''} ${path}: Debezium ${short(theirs)}, Millrace ${short(ours)}`;
}
