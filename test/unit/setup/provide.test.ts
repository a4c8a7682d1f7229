/** A step runs when what it makes is missing, out of date or damaged, and not otherwise. */
import assert from 'node:assert/strict';
import { chmod, cp, mkdtemp, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { MayflyError } from '../../../src/core/errors.ts';
import { digestOf } from '../../../src/core/json.ts';
import { openStore } from '../../../src/image/store.ts';
import { provide } from '../../../scripts/setup/provide.ts';
import type { ProvideOptions, StepReport } from '../../../scripts/setup/provide.ts';
import type { Step, Workshop } from '../../../scripts/setup/workshop.ts';

const clock = { now: () => 0, wallNanos: () => 0n, after: () => () => {} };

async function rig(t: TestContext) {
  const home = await mkdtemp(join(tmpdir(), 'mayfly-provide-'));
  t.after(() => rm(home, { recursive: true, force: true }));
  let inputs = 'one';
  let builds = 0;
  const step: Step = {
    name: 'thing', title: 'Thing', makes: ['thing'],
    inputs: async () => digestOf(inputs),
    async build({ store, scratch, now }, digest) {
      builds += 1;
      const file = join(scratch, 'thing');
      await writeFile(file, `made from ${inputs}`);
      await store.put({ name: 'thing', file, inputs: digest, madeAt: now(), meta: {} });
    },
  };
  const workshop = (at: string): Workshop => ({
    root: at, home: at, store: openStore(at), scratch: at, nodeBinary: '/none', now: () => '2026-01-01T00:00:00.000Z',
    signal: new AbortController().signal,
  });
  const run = async (options: Partial<ProvideOptions> = {}, at = home, what = step): Promise<StepReport['outcome']> =>
    (await provide(what, workshop(at), { clock, verify: false, rebuild: false, ...options }, () => {})).outcome;
  const blob = async (): Promise<string> => (await openStore(home).find('thing'))?.path ?? assert.fail('no artefact');
  return { home, step, run, blob, builds: () => builds, change: () => (inputs = 'two') };
}

test('the second run builds nothing', async (t) => {
  const { run, builds } = await rig(t);
  assert.equal(await run(), 'built');
  assert.equal(await run(), 'current');
  assert.equal(await run({ verify: true }), 'current');
  assert.equal(builds(), 1);
  assert.equal(await run({ rebuild: true }), 'built');
});

test('other inputs make another artefact', async (t) => {
  const { run, change } = await rig(t);
  await run();
  change();
  assert.equal(await run(), 'built');
  assert.equal(await run(), 'current');
});

test('a damaged, cut off or vanished blob is built again', async (t) => {
  const { run, blob, builds } = await rig(t);
  await run();
  const path = await blob();
  await chmod(path, 0o644);
  await writeFile(path, 'made from one and more');
  assert.equal(await run(), 'built');
  await chmod(path, 0o644);
  await writeFile(path, 'made from oNe');
  assert.equal(await run(), 'built');
  await chmod(path, 0o644);
  await truncate(path, 3);
  assert.equal(await run(), 'built');
  await rm(path);
  assert.equal(await run(), 'built');
  assert.equal(builds(), 5);
  assert.equal(await run(), 'current');
});

test('--verify finds damage that kept size and times', async (t) => {
  const { run, blob } = await rig(t);
  await run();
  const path = await blob();
  const wholeSecond = new Date(1_700_000_000_000);
  await utimes(path, wholeSecond, wholeSecond);
  assert.equal(await run(), 'current', 'a new time alone is not damage');
  await chmod(path, 0o644);
  await writeFile(path, 'made from oNe');
  await utimes(path, wholeSecond, wholeSecond);
  assert.equal((await stat(path)).mtimeMs, 1_700_000_000_000);
  assert.equal(await run(), 'current', 'the quick check believes size, time and inode');
  assert.equal(await run({ verify: true }), 'built');
});

test('a home that was copied is believed after it has been read once', async (t) => {
  const { home, run, builds } = await rig(t);
  await run();
  const copy = await mkdtemp(join(tmpdir(), 'mayfly-provide-'));
  t.after(() => rm(copy, { recursive: true, force: true }));
  await cp(home, copy, { recursive: true });
  assert.equal(await run({}, copy), 'current');
  const store = openStore(copy);
  const artefact = (await store.find('thing')) ?? assert.fail('no artefact');
  assert.equal(await store.trusted(artefact), true);
  assert.equal(builds(), 1);
});

test('a full disk is called by its name, whoever noticed it', async (t) => {
  const { home, run, step } = await rig(t);
  const failures: unknown[] = [
    Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' }),
    new MayflyError('E_SETUP_MISSING', 'mkfs failed', { detail: 'write: No space left on device' }),
  ];
  for (const failure of failures) {
    const failing: Step = { ...step, build: () => Promise.reject(failure) };
    await assert.rejects(run({}, home, failing), { code: 'E_DISK_SPACE' });
  }
  const other: Step = { ...step, build: () => Promise.reject(new Error('something else')) };
  await assert.rejects(run({}, home, other), /something else/);
});
