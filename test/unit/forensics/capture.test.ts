/**
 * Goal: a snapshot is whole or absent, is taken when it should be, never blocks a run, and ends when its time is over
 * (H6, H7). Method: a machine that is two pages of memory, and everything that can be missing around it.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { requireRole } from '../../../src/access.ts';
import { captureSnapshot, decodePages } from '../../../src/forensics/capture.ts';
import type { CaptureOrder } from '../../../src/forensics/capture.ts';
import { tenantFolder } from '../../../src/forensics/manifest.ts';
import { checkFiles, readDetails, readMemory } from '../../../src/forensics/open.ts';
import {
  findSnapshot, hold, liftHold, listSnapshots, purgeSnapshots, removeSnapshot,
} from '../../../src/forensics/store.ts';
import { wantedBecause } from '../../../src/forensics/wanted.ts';
import type { ForensicsCapture } from '../../../src/profile/profile.ts';
import type { Verdict } from '../../../src/validate/verdict.ts';
import { accepted, failed, withheld } from '../../../src/validate/verdict.ts';

const root = await mkdtemp(join(tmpdir(), 'mayfly-capture-'));
after(() => rm(root, { recursive: true }));
const RUN = '01M86TGAECYAE9HB802MYBC0ST';
const DAY = 86_400_000;
const NOW = 1_732_446_000_000;
const clock = { wallNanos: () => BigInt(NOW) * 1_000_000n };
const random = { bytes: (size: number): Buffer => randomBytes(size) };
const page = (fill: string): Buffer => Buffer.alloc(4096, fill);

async function newHome(name: string): Promise<string> {
  const home = join(root, name);
  await mkdir(home);
  await writeFile(join(home, 'ram'), Buffer.concat([page('a'), page('\0'), page('c'), page('d')]));
  return home;
}

function order(home: string, change: Partial<CaptureOrder> = {}): CaptureOrder {
  return {
    runId: RUN, tenant: 'default', because: 'asked for', retentionDays: 30, kernel: 'sha256:k', template: 'node-1',
    freeze: async () => {},
    memory: {
      ramBytes: 4 * 4096, base: join(home, 'ram'), registers: async () => 'CR3=1',
      async *changed() {
        yield { numbers: Uint32Array.of(1, 3), bytes: Buffer.concat([page('B'), page('D')]) };
      },
    },
    details: { event: 'secret-canary' },
    ...change,
  };
}

async function capture(home: string, change: Partial<CaptureOrder> = {}, budgetBytes = 2 ** 40) {
  return await captureSnapshot({ home, random, clock, budgetBytes }, order(home, change));
}

test('memory is the template with the changed pages above it; details are as they were given', async () => {
  const home = await newHome('whole');
  const kept = await capture(home);
  assert.ok(kept.kind === 'kept', JSON.stringify(kept));
  const snapshot = await findSnapshot(home, RUN);
  assert.equal(snapshot.digest, kept.manifest);
  assert.equal(snapshot.manifest.changedPages, 2);
  assert.equal(Date.parse(snapshot.manifest.expiresAt), NOW + 30 * DAY);
  await checkFiles(snapshot);
  const memory = await readMemory(home, snapshot);
  const text = memory.readPhysical(0, 4 * 4096)?.toString('latin1') ?? '';
  assert.deepEqual([0, 1, 2, 3].map((at) => text[at * 4096]), ['a', 'B', 'c', 'D']);
  assert.equal(memory.template().readPhysical(4096, 1)?.readUInt8(0), 0);
  assert.deepEqual(await readDetails(home, snapshot), { event: 'secret-canary', registers: 'CR3=1' });
  for (const name of await readdir(snapshot.folder)) {
    assert.ok(!(await readFile(join(snapshot.folder, name))).includes('secret-canary'), name);
  }
  await writeFile(join(snapshot.folder, 'memory'), 'x');
  await assert.rejects(checkFiles(snapshot), { code: 'E_FORENSICS_CORRUPT' });
});

test('H6: without space, an answer of the machine or its memory: skipped with a reason, nothing left', async () => {
  const home = await newHome('skipped');
  const broken: readonly (readonly [RegExp, Partial<CaptureOrder>, number?])[] = [
    [/snapshots have .* of their/, {}, 1_000],
    [/QMP/, { freeze: () => Promise.reject(new Error('QMP connection closed')) }],
    [/disk is full/, { memory: { ...order(home).memory, changed: () => full() } }],
    [/ENOENT/, { memory: { ...order(home).memory, base: '/nowhere' } }],
  ];
  for (const [said, change, budget] of broken) {
    const skipped = await capture(home, change, budget);
    assert.ok(skipped.kind === 'skipped', String(said));
    assert.match(skipped.reason, said);
    assert.deepEqual(await readdir(join(home, 'forensics/snapshots')), []);
  }
  assert.equal((await capture(home)).kind, 'kept');
});

async function* full(): AsyncGenerator<never> {
  yield* [];
  throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
}

test('a snapshot goes when its time is over, stays while it is held, and takes its template along', async () => {
  const home = await newHome('purge');
  await capture(home);
  const half = join(home, 'forensics/snapshots', `${RUN.slice(0, -1)}V.half`);
  await mkdir(half);
  await utimes(half, new Date(NOW - 2 * DAY), new Date(NOW - 2 * DAY));
  await utimes(join(home, 'forensics/bases/node-1'), new Date(NOW - 2 * DAY), new Date(NOW - 2 * DAY));
  assert.deepEqual((await purgeSnapshots(home, NOW + 29 * DAY)).removed, [`${RUN.slice(0, -1)}V.half`]);
  await hold(await findSnapshot(home, RUN), 'case 7');
  assert.deepEqual((await purgeSnapshots(home, NOW + 31 * DAY)).held, [RUN]);
  await assert.rejects(removeSnapshot(await findSnapshot(home, RUN)), { code: 'E_FORENSICS_HELD' });
  await writeFile(join(home, 'forensics/snapshots', RUN, 'hold.json'), 'damaged');
  assert.deepEqual((await purgeSnapshots(home, NOW + 31 * DAY)).held, [RUN], 'what may be a hold is one');
  await liftHold(await findSnapshot(home, RUN));
  assert.deepEqual((await purgeSnapshots(home, NOW + 31 * DAY)).removed, [RUN, 'memory of template node-1']);
  assert.deepEqual(await listSnapshots(home), []);
  await assert.rejects(findSnapshot(home, RUN), { code: 'E_FORENSICS_UNKNOWN' });
  await assert.rejects(findSnapshot(home, '../../etc'), { code: 'E_FORENSICS_UNKNOWN' });
});

test('what is kept: asked for, always, a violation, a sample; never the bug of an honest function', () => {
  const network = { totals: { denied: 1, queriesDenied: 0 } } as never;
  const because = (capture: ForensicsCapture, verdict: Verdict, keep = false, net?: never) =>
    wantedBecause({ runId: RUN, keep, capture, verdict, network: net });
  assert.equal(because('never', failed('E_GUEST_PROTOCOL', 'x')), undefined);
  assert.match(because('never', accepted, true) ?? '', /asked for/);
  assert.match(because('always', accepted) ?? '', /every run/);
  assert.match(because('on-violation', failed('E_GUEST_PROTOCOL', 'x')) ?? '', /E_GUEST_PROTOCOL/);
  assert.match(because('on-violation', withheld('E_OUTPUT_SECRET', 'x')) ?? '', /E_OUTPUT_SECRET/);
  assert.match(because('on-violation', accepted, false, network) ?? '', /1 denied/);
  for (const honest of [accepted, failed('E_FUNCTION_THREW', 'x'), withheld('E_OUTPUT_SCHEMA', 'x')]) {
    assert.equal(because('on-violation', honest), undefined);
  }
  const ids = Array.from({ length: 20_000 }, (_, at) => String(at));
  const kept = ids.filter((runId) => {
    const sample = { runId, keep: false, capture: 'sample', verdict: accepted, network: undefined } as const;
    return wantedBecause(sample) !== undefined;
  });
  assert.ok(kept.length > 120 && kept.length < 300, `${kept.length} of 20,000`);
});

test('H7: without a role nobody reads, and every attempt is written down', async () => {
  const home = await newHome('roles');
  const own = process.getuid?.() ?? 0;
  const as = (uid: number) => ({ home, uid, clock });
  await requireRole(as(own), 'analyst', 'snapshot 1');
  await assert.rejects(requireRole(as(own + 1), 'analyst', 'snapshot 1'), { code: 'E_ACCESS_DENIED' });
  await writeFile(join(home, 'roles.json'), JSON.stringify({ analyst: [own + 1] }));
  await requireRole(as(own + 1), 'analyst', 'snapshot 1');
  await assert.rejects(requireRole(as(own), 'analyst', 'snapshot 1'), { code: 'E_ACCESS_DENIED' });
  await assert.rejects(requireRole(as(own + 1), 'custodian', 'purge'), { code: 'E_ACCESS_DENIED' });
  await writeFile(join(home, 'roles.json'), 'damaged');
  await assert.rejects(requireRole(as(own + 1), 'analyst', 'snapshot 1'), { code: 'E_ACCESS_DENIED' });
  const lines = (await readFile(join(home, 'forensics/access.jsonl'), 'utf8')).trimEnd().split('\n');
  assert.deepEqual(
    lines.map((line) => (JSON.parse(line) as { granted: boolean }).granted),
    [true, false, true, false, false, false],
  );
});

test('a piece of memory that is none is refused; a tenant is no path', () => {
  assert.throws(() => decodePages(Buffer.from([255, 255, 255, 255]), () => {}), RangeError);
  assert.throws(() => decodePages(Buffer.alloc(10), () => {}), RangeError);
  assert.equal(tenantFolder(undefined), 'default');
  assert.equal(tenantFolder('acme-1'), 'acme-1');
  for (const hostile of ['../up', 'a/b', '', 'Ä', '.hidden', 'x'.repeat(100)]) {
    assert.match(tenantFolder(hostile), /^t-[0-9a-f]{32}$/);
  }
});
