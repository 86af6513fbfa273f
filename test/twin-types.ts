// Columns of every built-in type, with values for them, for tests that hold a table against its twin.

/** A type, and expressions for values of it; `n` counts rows. NULL comes by itself. */
const types: readonly (readonly [type: string, ...values: string[]])[] = [
  ['bool', 'true', 'false'],
  ['int2', '-32768', '32767'],
  ['int4', '-2147483648', 'n'],
  ['int8', '-9223372036854775808', '9223372036854775807', '9007199254740993 + n'],
  ['oid', '4294967295'],
  ['float4', `'NaN'`, `'-Infinity'`, '1e-37', '-0.0', 'random()'],
  ['float8', `'NaN'`, `'Infinity'`, '5e-324', '1.7976931348623157e308', 'random() * 1e100'],
  ['numeric', '0', '1e130', '-1e-50', `'NaN'`, '12345678901234567890.123456789', '-128', '255'],
  ['numeric(9,2)', '1234567.89', '-0.01', '(random() * 1000)::numeric(9,2)'],
  ['numeric(40,0)', '1234567890123456789012345678901234567890', '-99999999'],
  ['money', '-0.01', '92233720368547758.07'],
  ['bytea', `''`, `'\\x00ff10'`, 'sha256(int4send(n))'],
  ['text', `''`, `E'"quoted" \\\\ back\\n\\t\\u0001 żółw 🐢'`, `'{a,b}'`, `'123'`, 'n::text'],
  ['varchar(10)', `'ten letter'`],
  ['char(5)', `'a'`],
  ['"char"', `'x'`],
  ['name', `'Some Name'`],
  ['uuid', 'gen_random_uuid()'],
  ['inet', `'::1'`, `'10.0.0.0/8'`],
  ['cidr', `'10.0.0.0/8'`],
  ['macaddr', `'08:00:2b:01:02:03'`],
  ['macaddr8', `'08:00:2b:01:02:03:04:05'`],
  ['xml', `'<a b="c">d</a>'`],
  ['tsvector', `'''fat'':2 ''rat'':3A'`],
  ['tsquery', `'''fat'' & ''rat'''`],
  ['pg_lsn', `'16/B374D848'`],
  ['pg_snapshot', `'10:20:10,14,15'`],
  ['jsonpath', `'$."a"[*]'`],
  ['path', `'((0,0),(1,1))'`],
  ['polygon', `'((0,0),(1,1),(1,0))'`],
  ['circle', `'<(0,0),1>'`],
  ['box', `'(1,1),(0,0)'`],
  ['line', `'{1,2,3}'`],
  ['lseg', `'[(0,0),(1,1)]'`],
  ['point', `'(1.5,-2)'`],
  ['int4range', `'[1,10)'`, `'empty'`, `'(,5)'`],
  ['tstzrange', `'["2024-01-01 00:00:00+00",infinity)'`],
  ['int4multirange', `'{[1,2),[5,9)}'`],
  ['mood', `'sad'`, `'quite "happy"'`],
  ['pair', `ROW(1, 'a "b"')`],
  ['positive', 'n + 1'],
  ['json', `'{"b":1,"a":[1e400,12345678901234567890]}'`],
  ['jsonb', `'{"b": 1.50, "é": "\\u00e9"}'`, `'[]'`, `'12345678901234567890'`],
  ['bit(10)', `B'1010101011'`],
  ['bit(1)', `B'1'`],
  ['date', `'0044-03-15 BC'`, `'infinity'`, `'-infinity'`, `'2024-02-29'`, `'12024-01-01'`],
  ['time', `'00:00'`, `'24:00'`, `'12:34:56.789012'`],
  ['time(3)', `'12:34:56.789'`],
  ['timetz', `'12:34:56.789012+00'`],
  [
    'timestamp',
    `'0044-03-15 01:02:03.456789 BC'`,
    `'infinity'`,
    `'2024-02-29 12:34:56.789012'`,
    `'294276-12-31 23:59:59'`,
  ],
  ['timestamp(3)', `'2024-02-29 12:34:56.789'`, `'-infinity'`, `'1815-06-18 10:11:12.130'`],
  ['timestamptz', `'2024-02-29 12:34:56.789012+02'`, `'1969-12-31 23:59:59.999999+00'`, `'-infinity'`, 'now()'],
  ['int4[]', `'{}'`, `'{1,NULL,3}'`, `'{{1,2},{3,4}}'`],
  ['text[]', `ARRAY['a', 'b "c"', NULL, '{}', '\\', '']`],
  ['timestamptz[]', `'{"2024-02-29 12:34:56+00"}'`],
  ['uuid[]', 'ARRAY[gen_random_uuid()]'],
  ['mood[]', `ARRAY['sad'::mood]`],
  ['inet[]', `'{::1,10.0.0.1}'`],
  ['box[]', `'{(1,1),(0,0);(2,2),(1,1)}'`],
];
/** What Debezium's form does not tell: how many bits, months apart from days, that a numeric of any scale has zeros. */
const onlyPlain: readonly (readonly [string, ...string[]])[] = [
  ['numeric', '1000.000'],
  ['numeric[]', `'{1.10,-2}'`],
  ['varbit', `B''`, `B'1'`, `B'101010101'`],
  ['interval', `'1 year 2 mons -3 days 04:05:06.789'`],
  ['pair[]', `ARRAY[ROW(1, 'x,"y')::pair]`],
  ['jsonb[]', `ARRAY['[1,[2]]'::jsonb, '{"a": null}']`],
];

/** Those of the types that are not built in. */
export const createTypes = `
  CREATE TYPE mood AS ENUM ('sad', 'quite "happy"');
  CREATE TYPE pair AS (a int, b text);
  CREATE DOMAIN positive AS int CHECK (VALUE > 0)`;

export interface TypedColumn {
  readonly name: string;
  readonly type: string;
  /** Expressions over `n`. */
  readonly values: readonly string[];
}

/** Of a table that is captured in the format. */
export function columnsOf(format: 'plain' | 'debezium'): TypedColumn[] {
  const found = format === 'plain' ? [...types, ...onlyPlain] : types;
  return found.map(([type, ...values], i) => ({ name: `c${i}`, type, values }));
}

/** An expression for each column, of which each row has another value, NULL among them; `n` is a number of the row's. */
export function randomValues(columns: readonly TypedColumn[]): string {
  return columns
    .map(({ values, type }, i) => {
      const cases = values.map((value, k) => `WHEN ${k} THEN (${value})::${type}`).join(' ');
      return `CASE (n * 7 + ${i} + (random() * 5)::int) % ${values.length + 1} ${cases} END`;
    })
    .join(', ');
}
