/**
 * `npm test`: sets the machine up in a home of its own, then runs every check and test, also those with real VMs.
 *
 *   npm test                          everything
 *   npm test -- --only vm,sim         some families: static unit sim fuzz attack vm
 *   npm test -- --file engine         only test files whose path contains this
 */
import { constants, existsSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { conclude, families, root, runFamily, runSetup, runStaticChecks } from './steps.ts';
import type { Tally } from './steps.ts';

const { values } = parseArgs({ options: { only: { type: 'string' }, file: { type: 'string' } } });
const known = ['static', ...families.map(({ name }) => name)];
const wanted = values.only?.split(',') ?? known;
const unknown = wanted.filter((name) => !known.includes(name));
if (unknown.length > 0) {
  process.stderr.write(`test: no family ${unknown.join(', ')}; there are ${known.join(', ')}\n`);
  process.exit(2);
}

const tally: Tally = { passed: 0, failed: 0, skipped: [] };
process.env['MAYFLY_HOME'] = await testHome();
if (wanted.some((name) => name === 'vm' || name === 'attack')) await runSetup(tally, process.env);
if (wanted.includes('static')) await runStaticChecks(tally);
for (const family of families.filter(({ name }) => wanted.includes(name))) await runFamily(family, tally, values.file);
process.exitCode = conclude(tally);

/**
 * Tests never touch the user's own home: what they build, break and count is theirs. What set-up has built for the user
 * is copied, and checked by its digests, so that it is not fetched and built a second time.
 */
async function testHome(): Promise<string> {
  const home = process.env['MAYFLY_TEST_HOME'] ?? join(root, '.test-home');
  const users = process.env['MAYFLY_HOME'] ?? join(homedir(), '.mayfly');
  if (existsSync(join(home, 'artefacts'))) return home;
  for (const folder of ['store', 'artefacts'].filter((name) => existsSync(join(users, name)))) {
    await cp(join(users, folder), join(home, folder), { recursive: true, mode: constants.COPYFILE_FICLONE });
  }
  return home;
}
