// Every type of a column that PostgreSQL has, with values of it that are worth capturing.

export interface TypedColumn {
  readonly name: string;
  readonly type: string;
  /** As SQL; NULL is one more. The first is the column's default where it has one. */
  readonly values: readonly string[];
  /** A random value, as SQL. */
  readonly random?: string;
}

const column = (type: string, values: readonly string[], random?: string): TypedColumn => ({
  name: `c_${type.replace('[]', '_array').replaceAll('"', 'q').replaceAll(/\W+/g, '_').replace(/_$/, '')}`,
  type,
  values: values.map(value => (value.startsWith('=') ? value.slice(1) : `'${value.replaceAll("'", "''")}'`)),
  ...(random === undefined ? {} : { random }),
});

const timestamps = [
  '2024-02-29 12:34:56.789012',
  '0044-03-15 10:00:00 BC',
  '12024-01-01 00:00:00',
  '1969-12-31 23:59:59.999999',
];
const ends = ['infinity', '-infinity'];
const days = `'2000-01-01'::date + ((random() - 0.5) * 1000000)::int`;
const clock = `'00:00'::time + random() * interval '1 day'`;
const moment = `'2000-01-01'::timestamp + random() * interval '200 years'`;
const words = `md5(random()::text)`;

export const columns: readonly TypedColumn[] = [
  column('bool', ['true', 'false']),
  column('int2', ['-32768', '32767'], '((random() - 0.5) * 65535)::int2'),
  column('int4', ['-2147483648', '2147483647'], '((random() - 0.5) * 4e9)::int4'),
  column(
    'int8',
    ['9223372036854775807', '-9223372036854775808', '9007199254740993'],
    '((random() - 0.5) * 1.8e19)::int8',
  ),
  column('oid', ['4294967295']),
  column(
    'float4',
    ['1.5', 'NaN', 'Infinity', '-Infinity', '1e-20', '-0', '16777216'],
    '((random() - 0.5) * 10 ^ (random() * 60 - 30))::float4',
  ),
  column(
    'float8',
    ['1.5', 'NaN', 'Infinity', '-Infinity', '1e-7', '-0', '123456789012345680000', '100', '5e-324'],
    '(random() - 0.5) * 10 ^ (random() * 500 - 250)',
  ),
  column(
    'numeric',
    ['2.50', '-0.00100', '12345678901234567890.123456789', '0', '1e30', '-128', '255'],
    '((random() - 0.5) * 10 ^ (random() * 60 - 30)::int)::numeric(100, 40)',
  ),
  column('numeric(9,2)', ['1234567.89', '-0.01', '0'], '(random() - 0.5) * 10000000'),
  column('numeric(4,0)', ['1234', '-1']),
  column('numeric(30,10)', ['12345678901234567890.0123456789', '-99999999999999999999.9999999999']),
  column('money', ['1234.56', '-0.01', '92233720368547758.07'], '(random() * 1000000)::numeric::money'),
  column('text', ["it's", '', 'NULL', '"quoted" \\ back\n\t\r\b\f', '\u0001\u001f\u007f', 'żółw 🐢 \u2028'], words),
  column('varchar(20)', ['vc'], `left(${words}, 20)`),
  column('varchar', ['any']),
  column('char(5)', ['ab']),
  column('"char"', ['q']),
  column('xml', ['<a b="c">d</a>']),
  column('json', ['{"b": 1,  "a":1e400, "a":[]}', 'null', '"text"'], `json_build_object('n', random(), 's', ${words})`),
  column('jsonb', ['{"b": 1.50, "é": 2}', 'null', '[]'], `jsonb_build_object('n', random(), 's', ${words})`),
  column('uuid', ['6f1e2a54-0000-4000-8000-000000000001'], 'gen_random_uuid()'),
  column('bytea', ['\\x00ff10', '\\x', '\\xfbefbe'], 'sha256(random()::text::bytea)'),
  column('bit', ["=B'1'", "=B'0'"]),
  column('bit(10)', ["=B'1010101011'"]),
  column('varbit(12)', ["=B'101'", "=B''", "=B'101010101'"]),
  column('date', ['2024-02-29', '0044-03-15 BC', '12024-01-01', ...ends], days),
  column('time', ['12:34:56.789012', '00:00'], clock),
  column('time(3)', ['12:34:56.789', '00:00'], clock),
  column(
    'timetz',
    ['12:34:56.789012+02', '00:00-03:30', '12:34:56.5+00'],
    `(${clock}) AT TIME ZONE make_interval(mins => (random() * 600 - 300)::int)`,
  ),
  column('timestamp', [...timestamps, ...ends], moment),
  column(
    'timestamp(3)',
    ['2024-02-29 12:34:56.789', '1969-12-31 23:59:59.999', '0044-03-15 10:00:00 BC', ...ends],
    moment,
  ),
  column('timestamptz', [...timestamps, ...ends], moment),
  column('timestamptz(0)', ['2024-02-29 12:34:56+02', ...ends], moment),
  column(
    'interval',
    ['1 year 2 mons 3 days 04:05:06.789', '-1 days -02:03:04.5', '-1 mons', '00:00:00.000001'],
    `make_interval(months => (random() * 100)::int, days => (random() * 40)::int, secs => random() * 90000)`,
  ),
  column('point', ['(1.5,-2)', '(1e20,1e-7)'], 'point(random(), random() * 1000)'),
  column('inet', ['10.0.0.1', '10.1.2.3/8', '::1']),
  column('cidr', ['10.0.0.0/8']),
  column('macaddr', ['08:00:2b:01:02:03']),
  column('macaddr8', ['08:00:2b:01:02:03:04:05']),
  column('int4range', ['[1,5)', 'empty', '(,5)'], 'int4range((random() * 10)::int, 10 + (random() * 10)::int)'),
  column('int8range', ['[1,5)']),
  column('numrange', ['[1.5,2]']),
  column('tsrange', ['[2024-01-01,2024-01-02)']),
  column('tstzrange', ['[2024-01-01 00:00+00,2024-01-02 00:00+00)']),
  column('daterange', ['[2024-01-01,2024-01-05)']),
  column('mood', ['ok', 'quite "happy"', 'sad']),
  column('positive', ['5', '2147483647']),
  column('short_text', ['ab']),
  column('price', ['12.34', '-0.5']),
  column('int2[]', ['{1,2}']),
  column('int4[]', ['{1,NULL,3}', '{}'], 'ARRAY[(random() * 1000)::int, NULL, 3]'),
  column('int8[]', ['{9223372036854775807}']),
  column('text[]', ['{"a b","c\\"d",NULL,"","NULL"}', '{}'], `ARRAY[${words}, NULL]`),
  column('varchar(5)[]', ['{ab}']),
  column('char(3)[]', ['{ab}']),
  column('bool[]', ['{t,f,NULL}']),
  column('numeric[]', ['{1.5,2.250,NULL}']),
  column('numeric(9,2)[]', ['{1.50,2.25}']),
  column('float4[]', ['{1.5}']),
  column('float8[]', ['{1.5,-2,1e-7}']),
  column('date[]', ['{2024-02-29}']),
  column('time[]', ['{12:34:56}']),
  column('timetz[]', ['{12:34:56+02}']),
  column('timestamp[]', ['{"2024-02-29 12:34:56.789012"}']),
  column('timestamptz[]', ['{"2024-02-29 12:34:56.789012+02"}']),
  column('uuid[]', ['{6f1e2a54-0000-4000-8000-000000000001}']),
  column('bytea[]', ['{"\\\\x00ff"}']),
  column('json[]', ['{"{\\"a\\":1}"}']),
  column('jsonb[]', ['{"{\\"a\\":1}"}']),
  column('mood[]', ['{sad,ok}']),
  column('inet[]', ['{10.0.0.1}']),
  column('oid[]', ['{1}']),
  column('int4range[]', ['{"[1,5)"}']),
  column('varbit', ["=B'1011'"]),
  column('hstore', ['"a"=>"1", "b"=>NULL, "q\\""=>"x\\\\y"', '']),
  column('citext', ['Some Text']),
  column('ltree', ['Top.Science']),
  column('tsvector', ["'fat':2 'rat':3A"]),
];

/** What Debezium leaves out of its events, or writes null for. */
export const leftOut: readonly TypedColumn[] = [
  column('name', ['nm']),
  column('line', ['{1,2,3}']),
  column('lseg', ['[(0,0),(1,1)]']),
  column('box', ['(1,1),(0,0)']),
  column('path', ['[(0,0),(1,1)]']),
  column('polygon', ['((0,0),(1,1),(1,0))']),
  column('circle', ['<(0,0),1>']),
  column('tsquery', ["'fat' & 'rat'"]),
  column('pg_lsn', ['16/B374D848']),
  column('pair', ['(1,x)']),
  column('jsonpath', ['$.a']),
  column('xid', ['123']),
  column('regclass', ['pg_class']),
  column('int4multirange', ['{[1,2),[5,6)}']),
  column('bit(3)[]', ['{101}']),
  column('interval[]', ['{"1 day"}']),
  column('money[]', ['{$1.00}']),
  column('point[]', ['{"(1,2)"}']),
];

export const extensions: readonly string[] = ['hstore', 'citext', 'ltree'].map(name => `CREATE EXTENSION ${name}`);

export const typeDefinitions = `
  CREATE TYPE mood AS ENUM ('sad', 'ok', 'quite "happy"');
  CREATE TYPE pair AS (a int, b text);
  CREATE DOMAIN positive AS int CHECK (value > 0);
  CREATE DOMAIN short_text AS varchar(5);
  CREATE DOMAIN price AS numeric(7,2);`;
