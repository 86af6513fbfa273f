// What Kafka Connect's schema says of a column, and what Debezium writes where there is no value: in a column that cannot
// be NULL its default, else its type's zero (the row before a DELETE holds its key only); where a value that is stored out
// of line did not change, a placeholder.
import { asciiJson, JsonBuffer } from './json-buffer.ts';
import { type Converter, oid, type TypeLookup, type ValueStyle } from './values.ts';

/** What the catalogue says of a column. */
export interface ColumnFacts {
  readonly required: boolean;
  /** As pg_get_expr prints it. */
  readonly defaultExpression: string | null;
}

export interface ColumnSchema {
  /** The members of the schema's JSON object, but for the field's name. */
  readonly json: string;
  /** What stands for a value that is not there, as JSON. */
  readonly whenNull: string;
  /** What stands for one that was not logged, as JSON. */
  readonly whenUnchanged: string;
}

interface SchemaType {
  /** `"type":…`, and for a struct or an array what it is made of. */
  readonly type: string;
  readonly name?: string;
  readonly doc?: string;
  readonly parameters?: Readonly<Record<string, string>>;
  readonly zero: string;
  /** What texts of a default can be converted; absent: the type has no defaults. */
  readonly literal?: RegExp;
  /** The default that stands for an expression, whose value nobody knows; as zero where absent. */
  readonly computed?: string;
  /** Digits after the point of a Decimal, to which defaults are filled up. */
  readonly scale?: number;
  /** The elements of an array of it are never null in its schema. */
  readonly requiredElement?: true;
  /** For a value that was not logged, and for an array of them, where that is not an array of it. */
  readonly unchanged?: string;
  readonly unchangedArray?: string;
}

const integer = /^-?\d+$/;
const decimal = /^-?\d+(\.\d+)?$/;
const date = String.raw`\d{4,}-\d\d-\d\d`;
const clock = String.raw`\d\d:\d\d:\d\d(\.\d+)?`;
const anything = /^/;

const plain = (type: string, zero: string, literal?: RegExp): SchemaType => ({
  type: `"type":"${type}"`,
  zero,
  ...(literal && { literal }),
});
/** What Debezium writes for a value that was not logged. */
const unavailable = '__debezium_unavailable_value';
const unavailableBytes = Buffer.from(unavailable);
const numbers = JSON.stringify([...unavailableBytes]);
const text: SchemaType = { ...plain('string', '""'), unchanged: `"${unavailable}"` };
const named = (base: SchemaType, name: string, rest: Partial<SchemaType> = {}): SchemaType => ({
  ...base,
  name,
  ...rest,
});
const debezium = (name: string): string => `io.debezium.${name}`;

const json = named(text, debezium('data.Json'), { literal: anything, computed: '"{}"' });
const variableScale: SchemaType = {
  type: '"type":"struct","fields":[{"type":"int32","optional":false,"field":"scale"},{"type":"bytes","optional":false,"field":"value"}]',
  name: debezium('data.VariableScaleDecimal'),
  doc: 'Variable scaled decimal',
  zero: '{"scale":0,"value":"AA=="}',
};
const point: SchemaType = {
  type: '"type":"struct","fields":[{"type":"double","optional":false,"field":"x"},{"type":"double","optional":false,"field":"y"},{"type":"bytes","optional":true,"field":"wkb"},{"type":"int32","optional":true,"field":"srid"}]',
  name: debezium('data.geometry.Point'),
  doc: 'Geometry (POINT)',
  zero: '{"x":0.0,"y":0.0,"wkb":"AQEAAAAAAAAAAAAAAAAAAAAAAAAA","srid":null}',
};
const fixed: ReadonlyMap<number, SchemaType> = new Map([
  [oid.bool, plain('boolean', 'false', /^(true|false)$/)],
  [oid.int2, plain('int16', '0', integer)],
  [oid.int4, { ...plain('int32', '0', integer), unchangedArray: numbers }],
  [oid.int8, { ...plain('int64', '0', integer), unchangedArray: numbers }],
  [oid.oid, plain('int64', '0')],
  [oid.float4, plain('float', '0.0', decimal)],
  [oid.float8, plain('double', '0.0', decimal)],
  [oid.text, { ...text, literal: anything }],
  [oid.varchar, { ...text, literal: anything }],
  [oid.bpchar, { ...text, literal: anything }],
  [oid.xml, named(text, debezium('data.Xml'), { literal: anything })],
  [oid.json, json],
  [oid.jsonb, json],
  [
    oid.uuid,
    named(text, debezium('data.Uuid'), {
      literal: anything,
      computed: `"${'0'.repeat(8)}-0000-0000-0000-${'0'.repeat(12)}"`,
      unchangedArray: '["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]',
    }),
  ],
  [
    oid.date,
    named(plain('int32', '0', new RegExp(`^(-?infinity|${date}( BC)?)$`)), debezium('time.Date'), {
      unchangedArray: numbers,
    }),
  ],
  [oid.timetz, named(plain('string', '"00:00:00Z"'), debezium('time.ZonedTime'))],
  [oid.interval, named(plain('int64', '0', /^-?\d[-+\w :.]*$/), debezium('time.MicroDuration'))],
  [oid.point, point],
  [oid.tsvector, named(text, debezium('data.Tsvector'))],
]);
const byName: ReadonlyMap<string, SchemaType> = new Map([
  [
    'hstore',
    named(text, debezium('data.Json'), {
      zero: '"{}"',
      unchanged: JSON.stringify(JSON.stringify({ [unavailable]: unavailable })),
    }),
  ],
  ['ltree', named(text, debezium('data.Ltree'))],
]);

function decimalType(modifier: number, { decimals }: ValueStyle): SchemaType {
  if (decimals === 'double') return plain('double', '0.0', decimal);
  // The scale is eleven bits, with their sign (numeric.c).
  const scale = (((modifier - 4) & 0x7ff) ^ 1024) - 1024;
  if (decimals === 'string') {
    if (modifier < 0) return { ...text, zero: '"0"', literal: decimal };
    return { ...text, zero: `"${(0).toFixed(Math.max(0, scale))}"`, literal: decimal, scale };
  }
  if (modifier < 0) return variableScale;
  const parameters = { scale: String(scale), 'connect.decimal.precision': String((modifier - 4) >> 16) };
  return { ...plain('bytes', '"AA=="', decimal), name: 'org.apache.kafka.connect.data.Decimal', parameters, scale };
}

function unavailableBinary({ binary }: ValueStyle): string {
  return JSON.stringify(binary === 'base64' ? unavailableBytes.toString('base64') : unavailable);
}

function money(style: ValueStyle): SchemaType {
  const { literal: _none, ...base } = decimalType(-1, style);
  if (style.decimals === 'string') return { ...base, zero: '"0.00"' };
  if (base !== variableScale && base.name === undefined) return base;
  return { ...plain('bytes', '"AA=="'), name: 'org.apache.kafka.connect.data.Decimal', parameters: { scale: '2' } };
}

function schemaType(typeOid: number, modifier: number, style: ValueStyle, types: TypeLookup): SchemaType {
  const known = fixed.get(typeOid);
  if (known) return known;
  const precision = modifier >= 0 ? modifier : 6;
  switch (typeOid) {
    case oid.numeric:
      return decimalType(modifier, style);
    case oid.money:
      return money(style);
    case oid.bytea:
      return { ...(style.binary === 'base64' ? plain('bytes', '""') : text), unchanged: unavailableBinary(style) };
    case oid.bit:
    case oid.varbit: {
      if (typeOid === oid.bit && modifier === 1) return plain('boolean', 'false', /^[01]$/);
      const length = String(modifier >= 0 ? modifier : 2_147_483_647);
      return named(plain('bytes', '""', /^[01]*$/), debezium('data.Bits'), { parameters: { length } });
    }
    case oid.time:
      return precision > 3
        ? named(plain('int64', '0', new RegExp(`^${clock}$`)), debezium('time.MicroTime'))
        : named(plain('int32', '0', new RegExp(`^${clock}$`)), debezium('time.Time'));
    case oid.timestamp:
      return named(
        plain('int64', '0', new RegExp(`^(-?infinity|${date} ${clock}( BC)?)$`)),
        debezium(precision > 3 ? 'time.MicroTimestamp' : 'time.Timestamp'),
      );
    case oid.timestamptz:
      return named(
        plain('string', '"1970-01-01T00:00:00Z"', new RegExp(String.raw`^(-?infinity|${date} ${clock}\+00( BC)?)$`)),
        debezium('time.ZonedTimestamp'),
        { computed: `"1970-01-01T00:00:00${precision > 0 ? `.${'0'.repeat(precision)}` : ''}Z"` },
      );
  }
  const type = types(typeOid);
  if (type === undefined) return text;
  if (type.kind === 'd') {
    const { literal: _none, ...base } = schemaType(
      type.baseOid,
      modifier >= 0 ? modifier : type.baseModifier,
      style,
      types,
    );
    return base;
  }
  if (type.kind === 'e') {
    const parameters = { allowed: type.labels.join(',') };
    return named(text, debezium('data.Enum'), { parameters, literal: anything, requiredElement: true });
  }
  if (type.elementOid !== 0) {
    const element = schemaType(type.elementOid, modifier, style, types);
    const unchanged = element.unchangedArray ?? (element.unchanged && `[${element.unchanged}]`);
    return {
      type: `"type":"array","items":{${render(element, element.requiredElement === true)}}`,
      zero: '[]',
      ...(unchanged !== undefined && { unchanged }),
    };
  }
  return byName.get(type.name) ?? text;
}

function render({ type, name, doc, parameters }: SchemaType, required: boolean, defaultValue?: string): string {
  let members = `${type},"optional":${!required}`;
  if (name !== undefined) members += `,"name":${asciiJson(name)},"version":1`;
  if (doc !== undefined) members += `,"doc":${asciiJson(doc)}`;
  if (parameters !== undefined) {
    const listed = Object.entries(parameters).map(([key, value]) => `${asciiJson(key)}:${asciiJson(value)}`);
    members += `,"parameters":{${listed.join(',')}}`;
  }
  return defaultValue === undefined ? members : `${members},"default":${defaultValue}`;
}

/**
 * `convert` is the column's; a masked column is a text. `typed`: values must be what the schema says, so that null stands
 * for a value that was not logged where Debezium has nothing else.
 */
export function columnSchema(
  column: { readonly typeOid: number; readonly typeModifier: number },
  { required, defaultExpression }: ColumnFacts,
  style: ValueStyle,
  types: TypeLookup,
  convert: Converter,
  { masked, typed }: { readonly masked: boolean; readonly typed: boolean },
): ColumnSchema {
  const type = masked ? text : schemaType(column.typeOid, column.typeModifier, style, types);
  const defaultValue = defaultExpression === null ? undefined : defaultOf(defaultExpression, type, convert);
  const whenNull = required ? (defaultValue ?? type.zero) : 'null';
  const untyped = type.type.startsWith('"type":"array"') ? `["${unavailable}"]` : `"${unavailable}"`;
  return {
    json: render(type, required, defaultValue),
    whenNull,
    whenUnchanged: type.unchanged ?? (typed ? whenNull : untyped),
  };
}

/** Of a default, what can be told without asking the database: literals are converted, for calls stands a zero. */
function defaultOf(expression: string, type: SchemaType, convert: Converter): string | undefined {
  if (type.literal === undefined) return undefined;
  const literal = literalOf(expression);
  if (literal === undefined || !type.literal.test(literal)) {
    const isComputed = /^\(*[\w."]+\(|^(CURRENT_|LOCALTIME|\('now')/.test(expression);
    return isComputed ? (type.computed ?? type.zero) : undefined;
  }
  const digits = type.scale === undefined ? literal : withScale(literal, type.scale);
  if (digits === undefined) return undefined;
  const bytes = Buffer.from(digits);
  const out = new JsonBuffer(64);
  convert(out, bytes, 0, bytes.length);
  return out.copy().toString();
}

/** 'it''s'::text, E'back\\slash'::text, '-1'::integer, 1.5, true; not what is computed. */
function literalOf(expression: string): string | undefined {
  const [, escaping, quoted] = /^\(*(E?)'((?:[^']|'')*)'/.exec(expression) ?? [];
  if (quoted !== undefined) {
    const value = quoted.replaceAll("''", "'");
    return escaping === 'E' ? value.replaceAll('\\\\', '\\') : value;
  }
  return /^\(*(-?\d+(?:\.\d+)?|true|false)\)*(?:::[\w ]+\)*)*$/.exec(expression)?.[1];
}

function withScale(literal: string, scale: number): string | undefined {
  const [whole = '', fraction = ''] = literal.split('.');
  if (scale < 0 || fraction.length > scale) return undefined;
  return scale === 0 ? whole : `${whole}.${fraction.padEnd(scale, '0')}`;
}
