// Writes the topic configs of src/storage/topic-config-table.ts into docs/topics.md: npm run docs:topics
import { readFileSync, writeFileSync } from 'node:fs';
import { replaceTopicConfigs } from '../src/storage/topic-config-doc.ts';

const path = new URL('../docs/topics.md', import.meta.url);
writeFileSync(path, replaceTopicConfigs(readFileSync(path, 'utf8')));
