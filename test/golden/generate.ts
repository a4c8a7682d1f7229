/**
 * Writes test/golden/frames from the codec: `node test/golden/generate.ts`. test/unit/bridge/golden.test.ts fails when
 * a file differs from what the codec makes now, so a change of the format cannot pass unnoticed; guest/agent reads the
 * same files.
 */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { cases, describe, indexOf } from './cases.ts';

const folder = new URL('./frames/', import.meta.url);
mkdirSync(folder, { recursive: true });
for (const name of readdirSync(folder)) rmSync(new URL(name, folder));
for (const each of cases) {
  writeFileSync(new URL(`${each.name}.bin`, folder), each.bytes);
  writeFileSync(new URL(`${each.name}.json`, folder), describe(each));
}
writeFileSync(new URL('index.tsv', folder), indexOf(cases));
console.log(`${cases.length} cases in test/golden/frames`);
