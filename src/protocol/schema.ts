// How a wire message is declared: field order is wire order, version ranges sit on the field, and one TypeScript
// type covers all versions. compile.ts turns a declaration into a reader and a writer per version.
// A field that a version does not carry reads as its default; without `.default()` that is 0, '', [], false, no bytes.

export type Kind =
  | 'int8'
  | 'int16'
  | 'uint16'
  | 'int32'
  | 'uint32'
  | 'int64'
  | 'float64'
  | 'boolean'
  | 'string'
  | 'bytes'
  | 'records'
  | 'uuid'
  | 'array'
  | 'struct';

export interface Spec {
  readonly kind: Kind;
  /** Of an array. */
  readonly element?: Spec;
  /** Of a struct. */
  readonly fields?: Fields;
  readonly since: number;
  /** Inclusive. */
  readonly until: number;
  readonly nullableSince: number;
  /** `undefined` means the kind's own default. */
  readonly fallback: unknown;
  readonly tag: number | undefined;
}

/** `R` is what reading yields, `W` what writing accepts, `O` whether a writer may leave the field out. */
export class Field<R, W = R, O extends boolean = false> {
  declare readonly read: R;
  declare readonly write: W;
  declare readonly optional: O;
  readonly spec: Spec;

  constructor(spec: Spec) {
    this.spec = spec;
  }

  nullable(): Field<R | null, W | null, O> {
    return this.nullableSince(0);
  }
  nullableSince(version: number): Field<R | null, W | null, O> {
    return new Field({ ...this.spec, nullableSince: version });
  }
  since(version: number): Field<R, W, true> {
    return new Field({ ...this.spec, since: version });
  }
  /** The last version that carries the field. */
  until(version: number): Field<R, W, true> {
    return new Field({ ...this.spec, until: version });
  }
  default(value: R): Field<R, W, true> {
    return new Field({ ...this.spec, fallback: value });
  }
  /** A tagged field (KIP-482): sent only when it differs from its default. */
  tag(number: number): Field<R, W, true> {
    return new Field({ ...this.spec, tag: number });
  }
}

// biome-ignore lint/suspicious/noExplicitAny: the element types are recovered by inference
export type AnyField = Field<any, any, boolean>;
export type Fields = { readonly [name: string]: AnyField };

type OptionalNames<F extends Fields> = { [K in keyof F]: F[K]['optional'] extends true ? K : never }[keyof F];
export type ReadOf<F extends Fields> = { [K in keyof F]: F[K]['read'] };
export type WriteOf<F extends Fields> = { readonly [K in Exclude<keyof F, OptionalNames<F>>]: F[K]['write'] } & {
  readonly [K in OptionalNames<F>]?: F[K]['write'];
};

const plain = { since: 0, until: Number.MAX_SAFE_INTEGER, nullableSince: Number.MAX_SAFE_INTEGER } as const;
const field = <R, W = R>(kind: Kind, rest: Partial<Spec> = {}): Field<R, W> =>
  new Field<R, W>({ kind, fallback: undefined, tag: undefined, ...plain, ...rest });

export const int8 = field<number>('int8');
export const int16 = field<number>('int16');
export const uint16 = field<number>('uint16');
export const int32 = field<number>('int32');
export const uint32 = field<number>('uint32');
export const int64 = field<bigint>('int64');
export const float64 = field<number>('float64');
export const boolean = field<boolean>('boolean');
export const string = field<string>('string');
export const bytes = field<Buffer>('bytes');
/** Record batches; an array of buffers is written as its concatenation, without copying. */
export const records = field<Buffer, Buffer | readonly Buffer[]>('records');
/** Lower-case hex with dashes. */
export const uuid = field<string>('uuid');

export const struct = <F extends Fields>(fields: F): Field<ReadOf<F>, WriteOf<F>> =>
  field<ReadOf<F>, WriteOf<F>>('struct', { fields });

export function array<F extends Fields>(element: F): Field<ReadOf<F>[], readonly WriteOf<F>[]>;
export function array<R, W>(element: Field<R, W, boolean>): Field<R[], readonly W[]>;
export function array(element: AnyField | Fields): AnyField {
  return field('array', { element: element instanceof Field ? element.spec : struct(element).spec });
}

export interface Api<Q extends Fields = Fields, S extends Fields = Fields> {
  readonly key: number;
  readonly name: string;
  /** First and last version the codec knows; what is served is the handlers' business. */
  readonly versions: readonly [number, number];
  /** First version with compact lengths and tagged fields (KIP-482); Infinity when none has them. */
  readonly flexibleSince: number;
  readonly request: Q;
  readonly response: S;
}

export function api<Q extends Fields, S extends Fields>(declared: {
  key: number;
  name: string;
  versions: readonly [number, number];
  flexibleSince?: number;
  request: Q;
  response: S;
}): Api<Q, S> {
  return { flexibleSince: Number.POSITIVE_INFINITY, ...declared };
}

export const isFlexible = (api: Api, version: number): boolean => version >= api.flexibleSince;

/** A request as a broker reads it, and a response as a broker writes it. */
export type RequestOf<A extends Api> = ReadOf<A['request']>;
export type ResponseOf<A extends Api> = WriteOf<A['response']>;
/** The same two from the client's side. */
export type RequestToSend<A extends Api> = WriteOf<A['request']>;
export type ReceivedResponse<A extends Api> = ReadOf<A['response']>;
