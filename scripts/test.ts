/**
 * `npm test`: sets the machine up in a home of its own, then runs every check and test, also those with real VMs.
 *
 *   npm test                          everything
 *   npm test -- --only vm,sim         some families: static unit sim fuzz attack vm
 *   npm test -- --file engine         only test files whose path contains this
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { conclude, families, root, runFamily, runShown, runStaticChecks } from './steps.ts';
import type { Tally } from './steps.ts';

const { values } = parseArgs({ options: { only: { type: 'string' }, file: { type: 'string' } } });
const known = ['static', ...families.map(({ name }) => name)];
const wanted = values.only?.split(',') ?? known;
const unknown = wanted.filter((name) => !known.includes(name));
if (unknown.length > 0) {
  process.stderr.write(`test: no family ${unknown.join(', ')}; there are ${known.join(', ')}\n`);
  process.exit(2);
}

// Tests never touch the user's own home: what they build, break and count is theirs.
process.env['MAYFLY_HOME'] = process.env['MAYFLY_TEST_HOME'] ?? join(root, '.test-home');
const tally: Tally = { passed: 0, failed: 0, skipped: [] };
if (wanted.some((name) => name === 'vm' || name === 'attack' || name === 'unit')) {
  const status = await runShown(['scripts/setup.ts'], process.env);
  if (status !== 0) process.exit(status);
}
if (wanted.includes('static')) await runStaticChecks(tally);
for (const family of families.filter(({ name }) => wanted.includes(name))) await runFamily(family, tally, values.file);
process.exitCode = conclude(tally);
