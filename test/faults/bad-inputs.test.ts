import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { answersOf, badInputs } from './bad-inputs.ts';
import { TestServer } from './server.ts';

const file = new URL('../fixtures/bad-inputs.json', import.meta.url);
const kafka = JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>;

/** Where our answer is another than Apache Kafka's, and why. */
const departures: Readonly<Record<string, readonly [answer: string, reason: string]>> = {
  'records that are null': ['INVALID_RECORD', 'Kafka fails within and never answers'],
  'bytes after the batch': ['INVALID_RECORD', 'Kafka leaves them out'],
  'codec 5': ['UNSUPPORTED_COMPRESSION_TYPE', 'UNKNOWN_SERVER_ERROR tells nothing'],
  'codec 7': ['UNSUPPORTED_COMPRESSION_TYPE', 'UNKNOWN_SERVER_ERROR tells nothing'],
  'gzip that is none': ['CORRUPT_MESSAGE', 'UNKNOWN_SERVER_ERROR tells nothing'],
  'snappy that is none': ['CORRUPT_MESSAGE', 'UNKNOWN_SERVER_ERROR tells nothing'],
  'lz4 that is none': ['CORRUPT_MESSAGE', 'UNKNOWN_SERVER_ERROR tells nothing'],
  'zstd that is none': ['CORRUPT_MESSAGE', 'UNKNOWN_SERVER_ERROR tells nothing'],
  'fetch of less than no bytes': ['NONE with records', 'the first batch always comes, as for 0'],
};

const server = await TestServer.start({ settings: { 'auto.create.topics.enable': 'false' } });
after(() => server.remove());
const answers = await answersOf(server.port);

test('the fixture has Kafka’s answer to every bad input', () => {
  assert.deepEqual(Object.keys(kafka), Object.keys(badInputs));
  for (const what of Object.keys(departures)) assert.notEqual(departures[what]![0], kafka[what], what);
});

for (const [what, answer] of Object.entries(answers)) {
  const departure = departures[what];
  test(`${what}: ${answer}${departure ? `, where Kafka answers ${kafka[what]}: ${departure[1]}` : ''}`, () => {
    assert.equal(answer, departure?.[0] ?? kafka[what]);
  });
}
