// Compiles a declaration into a reader and a writer per version: straight-line source through `new Function`, which
// V8 optimises like hand-written code; walking the declaration for each message would not be.
// The source is built from declarations only, never from input.
import {
  type Api,
  type Fields,
  isFlexible,
  type ReadOf,
  type ReceivedResponse,
  type RequestOf,
  type RequestToSend,
  type ResponseOf,
  type Spec,
  type WriteOf,
} from './schema.ts';
import { Reader, Writer } from './wire.ts';

export type Read<T> = (reader: Reader) => T;
export type Write<T> = (writer: Writer, value: T) => void;

interface Codec {
  readRequest: Read<unknown>;
  writeRequest: Write<never>;
  readResponse: Read<unknown>;
  writeResponse: Write<never>;
}

const codecs = new WeakMap<Api, Codec[]>();

function codec(api: Api, version: number): Codec {
  let byVersion = codecs.get(api);
  if (byVersion === undefined) {
    byVersion = [];
    codecs.set(api, byVersion);
  }
  let compiled = byVersion[version];
  if (compiled === undefined) {
    compiled = compileApi(api, version);
    byVersion[version] = compiled;
  }
  return compiled;
}

function compileApi(api: Api, version: number): Codec {
  const [first, last] = api.versions;
  if (!Number.isInteger(version) || version < first || version > last) {
    throw new RangeError(`${api.name} version ${version} is outside ${first}-${last}`);
  }
  const flexible = isFlexible(api, version);
  return {
    readRequest: compileReader(api.request, version, flexible),
    writeRequest: compileWriter(api.request, version, flexible),
    readResponse: compileReader(api.response, version, flexible),
    writeResponse: compileWriter(api.response, version, flexible),
  };
}

export const supports = (api: Api, version: number): boolean =>
  version >= api.versions[0] && version <= api.versions[1];

/** `at` is where the body begins, so that a frame is read in place after its header. Throws WireError. */
export const readRequest = <A extends Api>(api: A, version: number, bytes: Buffer, at = 0): RequestOf<A> =>
  codec(api, version).readRequest(new Reader(bytes, at)) as RequestOf<A>;

/** `maxElements`: of all arrays together, where the broker is not trusted. */
export const readResponse = <A extends Api>(
  api: A,
  version: number,
  bytes: Buffer,
  at = 0,
  maxElements = Number.POSITIVE_INFINITY,
): ReceivedResponse<A> => codec(api, version).readResponse(new Reader(bytes, at, maxElements)) as ReceivedResponse<A>;

export const requestReader = <A extends Api>(api: A, version: number) =>
  codec(api, version).readRequest as Read<RequestOf<A>>;
export const responseReader = <A extends Api>(api: A, version: number) =>
  codec(api, version).readResponse as Read<ReceivedResponse<A>>;
export const requestWriter = <A extends Api>(api: A, version: number) =>
  codec(api, version).writeRequest as Write<RequestToSend<A>>;
export const responseWriter = <A extends Api>(api: A, version: number) =>
  codec(api, version).writeResponse as Write<ResponseOf<A>>;

// Writing is synchronous and the result is copied out, so one scratch buffer serves every message.
const writer = new Writer();

export function encode(write: (writer: Writer) => void): Buffer[] {
  writer.reset();
  write(writer);
  return writer.finish();
}

export const writeRequest = <A extends Api>(api: A, version: number, value: RequestToSend<A>): Buffer[] =>
  encode(writer => codec(api, version).writeRequest(writer, value as never));

export const writeResponse = <A extends Api>(api: A, version: number, value: ResponseOf<A>): Buffer[] =>
  encode(writer => codec(api, version).writeResponse(writer, value as never));

const carries = (spec: Spec, version: number): boolean => version >= spec.since && version <= spec.until;
const nullableAt = (spec: Spec, version: number): boolean => version >= spec.nullableSince;
/** Record batches are bytes; only writing them differs, because they may come in parts. */
const readMethod: Partial<Record<Spec['kind'], string>> = { bytes: 'bytes', records: 'bytes' };

function literal(value: unknown): string {
  return typeof value === 'bigint' ? `${value}n` : JSON.stringify(value);
}

/** Source of the default value. */
function fallback(spec: Spec): string {
  if (spec.fallback !== undefined) return literal(spec.fallback);
  switch (spec.kind) {
    case 'int64':
      return '0n';
    case 'boolean':
      return 'false';
    case 'string':
      return "''";
    case 'uuid':
      return "'00000000-0000-0000-0000-000000000000'";
    case 'bytes':
    case 'records':
      return 'noBytes';
    case 'array':
      return '[]';
    case 'struct':
      return `{ ${Object.entries(spec.fields!)
        .map(([name, field]) => `${name}: ${fallback(field.spec)}`)
        .join(', ')} }`;
    default:
      return '0';
  }
}

/** The least a value takes on the wire: what a claimed count is checked against. */
function leastBytes(spec: Spec, version: number, flexible: boolean): number {
  switch (spec.kind) {
    case 'int8':
    case 'boolean':
      return 1;
    case 'int16':
    case 'uint16':
      return 2;
    case 'int32':
    case 'uint32':
      return 4;
    case 'int64':
    case 'float64':
      return 8;
    case 'uuid':
      return 16;
    case 'string':
      return flexible ? 1 : 2;
    case 'bytes':
    case 'records':
    case 'array':
      return flexible ? 1 : 4;
    case 'struct': {
      if (nullableAt(spec, version)) return 1;
      let least = flexible ? 1 : 0;
      for (const { spec: field } of Object.values(spec.fields!)) {
        if (carries(field, version) && field.tag === undefined) least += leastBytes(field, version, flexible);
      }
      if (least === 0) throw new Error('an array element without bytes');
      return least;
    }
  }
}

/** The name of the Reader or Writer method for a kind: compactNullableString, count, nonNullBytes … */
function method(name: string, nullable: boolean, flexible: boolean): string {
  const parts = [flexible ? 'compact' : '', nullable ? 'nullable' : '', name].filter(part => part !== '');
  if (parts.length === 1 && name === 'bytes') return 'nonNullBytes';
  return parts.map((part, index) => (index === 0 ? part : part[0]!.toUpperCase() + part.slice(1))).join('');
}

const noBytes = Buffer.alloc(0);

abstract class Emitter {
  protected readonly lines: string[] = [];
  protected readonly version: number;
  protected readonly flexible: boolean;
  private names = 0;

  constructor(version: number, flexible: boolean) {
    this.version = version;
    this.flexible = flexible;
  }
  protected name(stem: string): string {
    return `${stem}${++this.names}`;
  }
  protected emit(line: string): void {
    this.lines.push(line);
  }
  protected tagged(fields: Fields): [string, Spec, number][] {
    const tagged: [string, Spec, number][] = [];
    if (!this.flexible) return tagged;
    for (const [name, { spec }] of Object.entries(fields)) {
      if (spec.tag !== undefined && carries(spec, this.version)) tagged.push([name, spec, spec.tag]);
    }
    return tagged.sort((a, b) => a[2] - b[2]);
  }
  protected carriedUntagged(spec: Spec): boolean {
    return spec.tag === undefined && carries(spec, this.version);
  }
}

class ReaderEmitter extends Emitter {
  /** Emits what must be read first and returns the expression of the value. */
  struct(fields: Fields): string {
    const values = new Map<string, string>();
    for (const [name, { spec }] of Object.entries(fields)) {
      const variable = this.name(name);
      values.set(name, variable);
      const value = this.carriedUntagged(spec) ? this.value(spec) : fallback(spec);
      this.emit(`let ${variable} = ${value};`);
    }
    if (this.flexible) this.tags(this.tagged(fields), values);
    return `{ ${[...values].map(([name, variable]) => `${name}: ${variable}`).join(', ')} }`;
  }

  private tags(tagged: [string, Spec, number][], values: Map<string, string>): void {
    if (tagged.length === 0) {
      this.emit('r.skipTags();');
      return;
    }
    const [left, end] = [this.name('left'), this.name('end')];
    this.emit(`for (let ${left} = r.uvarint(); ${left} > 0; ${left}--) {`);
    const tag = this.name('tag');
    this.emit(`const ${tag} = r.uvarint(); const ${end} = r.tagEnd(r.uvarint());`);
    this.emit(`switch (${tag}) {`);
    for (const [name, spec, number] of tagged) {
      this.emit(`case ${number}: {`);
      this.emit(`${values.get(name)} = ${this.value(spec)};`);
      this.emit('break; }');
    }
    this.emit(`default: r.at = ${end};`);
    this.emit('}');
    this.emit(`r.endTag(${end});`);
    this.emit('}');
  }

  private value(spec: Spec): string {
    const nullable = nullableAt(spec, this.version);
    switch (spec.kind) {
      case 'array':
        return this.array(spec.element!, nullable);
      case 'struct': {
        if (!nullable) return this.struct(spec.fields!);
        const value = this.name('struct');
        this.emit(`let ${value} = null;`);
        this.emit('if (r.int8() >= 0) {');
        this.emit(`${value} = ${this.struct(spec.fields!)};`);
        this.emit('}');
        return value;
      }
      case 'string':
      case 'bytes':
      case 'records':
        return `r.${method(readMethod[spec.kind] ?? spec.kind, nullable, this.flexible)}()`;
      default:
        return `r.${spec.kind}()`;
    }
  }

  private array(element: Spec, nullable: boolean): string {
    const [items, count, index] = [this.name('items'), this.name('count'), this.name('i')];
    const least = leastBytes(element, this.version, this.flexible);
    this.emit(`const ${count} = r.${method('count', nullable, this.flexible)}(${least});`);
    this.emit(`const ${items} = ${nullable ? `${count} < 0 ? null : ` : ''}new Array(${count});`);
    this.emit(`for (let ${index} = 0; ${index} < ${count}; ${index}++) {`);
    this.emit(`${items}[${index}] = ${this.value(element)};`);
    this.emit('}');
    return items;
  }

  source(fields: Fields): string {
    this.emit(`return ${this.struct(fields)};`);
    return this.lines.join('\n');
  }
}

class WriterEmitter extends Emitter {
  struct(fields: Fields, from: string): void {
    for (const [name, { spec }] of Object.entries(fields)) {
      if (this.carriedUntagged(spec)) this.value(spec, this.field(spec, name, from));
    }
    if (this.flexible) this.tags(this.tagged(fields), from);
  }

  /** A field left out is written as its default. */
  private field(spec: Spec, name: string, from: string): string {
    const variable = this.name(name);
    this.emit(`let ${variable} = ${from}.${name};`);
    this.emit(`if (${variable} === undefined) ${variable} = ${fallback(spec)};`);
    return variable;
  }

  private tags(tagged: [string, Spec, number][], from: string): void {
    if (tagged.length === 0) {
      this.emit('w.uvarint(0);');
      return;
    }
    const present = tagged.map(([name, spec, number]) => {
      const variable = this.field(spec, name, from);
      const flag = this.name('has');
      this.emit(`const ${flag} = ${this.differs(spec, variable)};`);
      return { spec, number, variable, flag };
    });
    this.emit(`w.uvarint(${present.map(({ flag }) => `(${flag} ? 1 : 0)`).join(' + ')});`);
    for (const { spec, number, variable, flag } of present) {
      const start = this.name('start');
      this.emit(`if (${flag}) {`);
      this.emit(`const ${start} = w.beginTag(${number});`);
      this.value(spec, variable);
      this.emit(`w.endTag(${start});`);
      this.emit('}');
    }
  }

  /** Source of the test whether a value differs from its default. */
  private differs(spec: Spec, value: string): string {
    if (spec.fallback !== undefined) return `${value} !== ${fallback(spec)}`;
    switch (spec.kind) {
      case 'array':
      case 'bytes':
        return `(${value} === null || ${value}.length > 0)`;
      case 'struct': {
        const inner = Object.entries(spec.fields!)
          .filter(([, field]) => carries(field.spec, this.version))
          .map(
            ([name, field]) => `(${value}.${name} !== undefined && ${this.differs(field.spec, `${value}.${name}`)})`,
          );
        return `(${value} === null || ${inner.join(' || ')})`;
      }
      default:
        return `${value} !== ${fallback(spec)}`;
    }
  }

  private value(spec: Spec, value: string): void {
    const nullable = nullableAt(spec, this.version);
    if (spec.kind === 'array') {
      this.array(spec.element!, nullable, value);
    } else if (spec.kind === 'struct') {
      if (nullable) this.emit(`if (${value} === null) w.int8(-1); else { w.int8(1);`);
      this.struct(spec.fields!, value);
      if (nullable) this.emit('}');
    } else if (spec.kind === 'string' || spec.kind === 'bytes' || spec.kind === 'records') {
      this.emit(`w.${method(spec.kind, nullable, this.flexible)}(${value});`);
    } else {
      this.emit(`w.${spec.kind}(${value});`);
    }
  }

  private array(element: Spec, nullable: boolean, value: string): void {
    if (nullable) {
      this.emit(`if (${value} === null) ${this.flexible ? 'w.uvarint(0)' : 'w.int32(-1)'}; else {`);
    }
    this.emit(this.flexible ? `w.uvarint(${value}.length + 1);` : `w.int32(${value}.length);`);
    const index = this.name('i');
    const item = this.name('item');
    this.emit(`for (let ${index} = 0; ${index} < ${value}.length; ${index}++) {`);
    this.emit(`const ${item} = ${value}[${index}];`);
    this.value(element, item);
    this.emit('}');
    if (nullable) this.emit('}');
  }

  source(fields: Fields): string {
    this.struct(fields, 'value');
    return this.lines.join('\n');
  }
}

export function compileReader<F extends Fields>(fields: F, version: number, flexible: boolean): Read<ReadOf<F>> {
  const source = new ReaderEmitter(version, flexible).source(fields);
  const make = new Function('noBytes', `'use strict'; return function read(r) {\n${source}\n}`);
  return make(noBytes) as Read<ReadOf<F>>;
}

export function compileWriter<F extends Fields>(fields: F, version: number, flexible: boolean): Write<WriteOf<F>> {
  const source = new WriterEmitter(version, flexible).source(fields);
  const make = new Function('noBytes', `'use strict'; return function write(w, value) {\n${source}\n}`);
  return make(noBytes) as Write<WriteOf<F>>;
}
