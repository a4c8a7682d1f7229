/**
 * Goal: what a run held is gone, or it is said what is not; and nobody else's process is ever touched (G7).
 * Method: real processes where processes matter, planted identities where a pid has been reused.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as wait } from 'node:timers/promises';
import fc from 'fast-check';
import { createDisk } from '../../../src/core/disk.ts';
import type { Holding, JournalEntry } from '../../../src/journal/entry.ts';
import { openJournal } from '../../../src/journal/journal.ts';
import type { Replay } from '../../../src/journal/journal.ts';
import { Ledger } from '../../../src/release/ledger.ts';
import { createProcesses } from '../../../src/release/processes.ts';
import { planReclaim, reclaimRuns } from '../../../src/release/reclaim.ts';
import type { AbandonedRun, FoundRun } from '../../../src/release/reclaim.ts';
import { releaseAll } from '../../../src/release/release.ts';

const home = await mkdtemp(join(tmpdir(), 'mayfly-release-'));
const children: ChildProcess[] = [];
after(async () => {
  for (const child of children) child.kill('SIGKILL');
  await rm(home, { recursive: true });
});
const disk = createDisk();
const processes = createProcesses();
const look = { disk, processes };
const bootId = await processes.bootId();

async function sleeper(): Promise<{ child: ChildProcess; pid: number; startTicks: string }> {
  const child = spawn('sleep', ['60'], { stdio: 'ignore' });
  children.push(child);
  const pid = child.pid;
  assert.ok(pid !== undefined);
  const ticks = await processes.startTicks(pid);
  assert.ok(ticks !== undefined);
  return { child, pid, startTicks: String(ticks) };
}

const gone = async (pid: number): Promise<boolean> => (await processes.startTicks(pid)) === undefined;

async function newLedger(name: string): Promise<Ledger> {
  return new Ledger(await openJournal(disk, join(home, 'ledgers', name)));
}

test('release kills, closes and removes, in that order whatever the order of entries, and finds it gone', async () => {
  const ledger = await newLedger('order');
  const { child, pid, startTicks } = await sleeper();
  const path = join(home, 'scratch');
  await writeFile(path, 'x');
  const order: string[] = [];
  const note = (what: string, release: () => Promise<unknown>) => async (): Promise<void> => {
    order.push(what);
    await release();
  };
  await ledger.hold({ holding: { kind: 'path', path }, release: note('path', () => disk.remove(path)) });
  await ledger.hold({ holding: { kind: 'bridge', pid }, release: note('bridge', async () => {}) });
  const kill = async (): Promise<void> => {
    const exited = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await exited;
  };
  await ledger.hold({ holding: { kind: 'machine', pid, startTicks }, release: note('machine', kill) });
  const release = await releaseAll(ledger, look);
  assert.deepEqual(order, ['machine', 'bridge', 'path']);
  assert.deepEqual(release, {
    verified: true, released: [`machine ${pid}`, `bridge of machine ${pid}`, `path ${path}`], left: [],
  });
  assert.deepEqual(await releaseAll(ledger, look), { verified: true, released: [], left: [] }, 'again: nothing left');
});

test('a release that claims success is not believed; the next one takes up what is left', async () => {
  const ledger = await newLedger('liar');
  const { child, pid, startTicks } = await sleeper();
  let lies = true;
  await ledger.hold({
    holding: { kind: 'machine', pid, startTicks },
    release: async () => {
      if (lies) return;
      const exited = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await exited;
    },
  });
  const first = await releaseAll(ledger, look);
  assert.deepEqual(first, { verified: false, released: [], left: [`machine ${pid}: still running`] });
  lies = false;
  assert.equal((await releaseAll(ledger, look)).verified, true);
});

test('each step that fails is named, and does not keep the others from running', async () => {
  for (const failing of [0, 1, 2]) {
    const ledger = await newLedger(`failing-${failing}`);
    const paths = [0, 1, 2].map((index) => join(home, `file-${failing}-${index}`));
    for (const [index, path] of paths.entries()) {
      await writeFile(path, 'x');
      await ledger.hold({
        holding: { kind: 'path', path },
        release: () => (index === failing ? Promise.reject(new Error('EIO')) : disk.remove(path)),
      });
    }
    const release = await releaseAll(ledger, look);
    assert.equal(release.released.length, 2);
    assert.deepEqual(release.left, [`path ${paths[failing]}: still there (EIO)`]);
  }
});

test('a zombie is gone; a process that cannot be looked for is not', async () => {
  // The shell becomes a sleep that never waits for its child, so that one stays a zombie.
  const shell = spawn('sh', ['-c', 'sleep 2 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'ignore'] });
  children.push(shell);
  const printed = await new Promise<Buffer>((resolve) => shell.stdout.once('data', resolve));
  const pid = Number(printed.toString());
  const startTicks = String(await processes.startTicks(pid));
  for (let tries = 0; tries < 500 && !(await gone(pid)); tries++) await wait(20);
  process.kill(pid, 0);
  assert.equal(await gone(pid), true, 'kill(pid, 0) succeeds, and yet it is gone');
  const blind = { disk, processes: { ...processes, startTicks: () => Promise.reject(new Error('EACCES')) } };
  const ledger = await newLedger('blind');
  await ledger.hold({ holding: { kind: 'machine', pid, startTicks }, release: async () => {} });
  assert.match((await releaseAll(ledger, blind)).left[0] ?? '', /could not be looked for: EACCES/);
});

test('removing a path never follows a link out', async () => {
  const outside = join(home, 'outside');
  await writeFile(outside, 'keep');
  const folder = join(home, 'with-link');
  await disk.makeFolder(folder);
  await symlink(outside, join(folder, 'link'));
  await symlink(home, join(folder, 'up'));
  await disk.remove(folder);
  assert.equal((await disk.read(outside, 100)).toString(), 'keep');
});

// ---- reclaim --------------------------------------------------------------------------------------------------------

const ids = ['01JDQ0000000000000000000AA', '01JDQ0000000000000000000BB', '01JDQ0000000000000000000CC'] as const;
const now = 1_732_446_000_000 + 3_600_000;
const clock = { wallNanos: () => BigInt(now) * 1_000_000n };

function acceptedEntry(runId: string, owner: { pid: number; startTicks: string; bootId: string }): JournalEntry {
  return {
    kind: 'accepted', journalVersion: 1, runId, owner, acceptedAt: '2024-11-24T11:00:00.000Z',
    event: { digest: 'sha256:0', bytes: 1 },
  };
}

async function plant(folder: string, name: string, entries: readonly JournalEntry[]): Promise<void> {
  const journal = await openJournal(disk, join(folder, name));
  for (const entry of entries) await journal.append(entry);
}

interface Sealed {
  readonly run: AbandonedRun;
  readonly left: readonly string[];
}

async function reclaim(folder: string, changes: Partial<Parameters<typeof reclaimRuns>[0]> = {}) {
  const sealed: Sealed[] = [];
  const seal = async (run: AbandonedRun, { left }: { left: readonly string[] }): Promise<void> => {
    sealed.push({ run, left });
  };
  const defaults = { disk, processes, clock, folder, seal, wait: (millis: number) => wait(millis) };
  const result = await reclaimRuns({ ...defaults, ...changes });
  return { ...result, sealed };
}

const dead = { pid: 2 ** 22 - 3, startTicks: '1', bootId };

test('a clone that waited when its owner died is killed and removed, without evidence', async () => {
  const folder = join(home, 'run-pooled');
  const { pid, startTicks } = await sleeper();
  await plant(folder, ids[0], [
    { kind: 'pooled', journalVersion: 1, runId: ids[0], owner: dead },
    { kind: 'cloning', attempt: 1 }, { kind: 'holding', holding: { kind: 'machine', pid, startTicks } },
  ]);
  assert.deepEqual(await reclaim(folder), { ended: [], undelivered: [], reports: [], sealed: [] });
  assert.equal(await processes.startTicks(pid), undefined, 'its machine is still there');
  assert.deepEqual(await disk.list(folder), []);
});

test('a dead owner’s machine is killed, its evidence sealed, its folder removed; again, nothing happens', async () => {
  const folder = join(home, 'run-dead');
  const { pid, startTicks } = await sleeper();
  const machine: Holding = { kind: 'machine', pid, startTicks };
  await plant(folder, ids[0], [
    acceptedEntry(ids[0], dead), { kind: 'profiled', digest: 'sha256:p' }, { kind: 'cloning', attempt: 1 },
    { kind: 'holding', holding: machine }, { kind: 'delivering' },
  ]);
  const { ended, reports, sealed } = await reclaim(folder);
  assert.deepEqual({ ended, reports }, { ended: [ids[0]], reports: [] });
  assert.equal(await gone(pid), true);
  assert.deepEqual(await disk.list(folder), []);
  assert.deepEqual(sealed.map(({ run }) => [run.attempts, run.delivered, run.profileDigest]), [[1, true, 'sha256:p']]);
  assert.deepEqual((await reclaim(folder)).ended, []);
});

test('G7: a pid that a stranger has now is not killed', async () => {
  const folder = join(home, 'run-reused');
  const stranger = await sleeper();
  const reused: Holding = { kind: 'machine', pid: stranger.pid, startTicks: String(BigInt(stranger.startTicks) - 1n) };
  await plant(folder, ids[0], [acceptedEntry(ids[0], dead), { kind: 'holding', holding: reused }]);
  const { ended } = await reclaim(folder);
  assert.deepEqual(ended, [ids[0]]);
  assert.equal(await gone(stranger.pid), false);
});

test('G7: nothing comes between the last look at an identity and its kill', async () => {
  const folder = join(home, 'run-look-then-kill');
  const calls: string[] = [];
  const watched = {
    bootId: processes.bootId,
    kill: (pid: number) => void calls.push(`kill ${pid}`),
    startTicks: async (pid: number) => {
      calls.push(`look ${pid}`);
      return pid !== dead.pid && !calls.includes(`kill ${pid}`) ? 5n : undefined;
    },
  };
  const holding = (pid: number): JournalEntry => {
    return { kind: 'holding', holding: { kind: 'machine', pid, startTicks: '5' } };
  };
  await plant(folder, ids[0], [acceptedEntry(ids[0], dead), holding(77), holding(78)]);
  assert.deepEqual((await reclaim(folder, { processes: watched })).ended, [ids[0]]);
  for (const pid of [77, 78]) assert.equal(calls[calls.indexOf(`kill ${pid}`) - 1], `look ${pid}`);
});

test('after a reboot of the host the pids in a journal mean nothing', async () => {
  const folder = join(home, 'run-reboot');
  const stranger = await sleeper();
  const { pid, startTicks } = stranger;
  await plant(folder, ids[0], [
    acceptedEntry(ids[0], { ...dead, bootId: 'another' }),
    { kind: 'holding', holding: { kind: 'machine', pid, startTicks } },
  ]);
  assert.deepEqual((await reclaim(folder)).ended, [ids[0]]);
  assert.equal(await gone(pid), false);
});

test('a living owner’s run, a damaged journal and foreign folders are left alone, and said so', async () => {
  const folder = join(home, 'run-mixed');
  const owner = await sleeper();
  const machine = await sleeper();
  await plant(folder, ids[0], [
    acceptedEntry(ids[0], { pid: owner.pid, startTicks: owner.startTicks, bootId }),
    { kind: 'holding', holding: { kind: 'machine', pid: machine.pid, startTicks: machine.startTicks } },
  ]);
  await plant(folder, ids[1], [acceptedEntry(ids[1], dead)]);
  await disk.append(join(folder, ids[1], 'journal'), Buffer.from('damage\nmore\n'), { sync: false });
  await disk.makeFolder(join(folder, 'lost+found'));
  const { ended, reports } = await reclaim(folder);
  assert.deepEqual(ended, []);
  assert.equal(reports.length, 2);
  assert.match(reports.join('\n'), /damaged at line 2/);
  assert.match(reports.join('\n'), /lost\+found was left alone: not a run/);
  assert.equal((await disk.list(folder)).length, 3);
  assert.equal(await gone(machine.pid), false);
});

test('what cannot be ended keeps its folder for the next start, without evidence of success', async () => {
  const folder = join(home, 'run-stubborn');
  const { pid, startTicks } = await sleeper();
  await plant(folder, ids[0], [
    acceptedEntry(ids[0], dead), { kind: 'holding', holding: { kind: 'machine', pid, startTicks } },
  ]);
  const immortal = { ...processes, kill: () => {} };
  const first = await reclaim(folder, { processes: immortal, wait: async () => {} });
  assert.deepEqual(first.ended, []);
  assert.match(first.reports[0] ?? '', /could not be ended: still there: machine/);
  assert.equal(first.sealed.length, 0);
  const unsealed = await reclaim(folder, { seal: () => Promise.reject(new Error('disk full')) });
  assert.deepEqual(unsealed.ended, []);
  assert.deepEqual(await disk.list(folder), [ids[0]]);
  assert.deepEqual((await reclaim(folder)).ended, [ids[0]]);
});

test('a journal does not get to choose what is removed', async () => {
  const folder = join(home, 'run-paths');
  const victim = join(home, 'victim');
  await writeFile(victim, 'keep');
  for (const [index, path] of [victim, `${folder}/../victim`, `${folder}/./x`].entries()) {
    const name = ids[index] ?? ids[0];
    await plant(folder, name, [acceptedEntry(name, dead), { kind: 'holding', holding: { kind: 'path', path } }]);
  }
  const { reports } = await reclaim(folder);
  assert.equal(reports.length, 3);
  assert.equal((await disk.read(victim, 10)).toString(), 'keep');
});

test('property: the plan ends a run only when its owner is known to be gone', () => {
  const journals: fc.Arbitrary<Replay> = fc.oneof(
    fc.constant<Replay>({ ok: false, line: 1 }),
    fc.subarray<JournalEntry>([
      acceptedEntry(ids[0], dead), { kind: 'cloning', attempt: 1 },
      { kind: 'holding', holding: { kind: 'machine', pid: 9, startTicks: '9' } }, { kind: 'sealed', hash: 'h' },
    ]).map((entries): Replay => ({ ok: true, entries, torn: false })),
  );
  const runs: fc.Arbitrary<FoundRun> = fc.record({
    name: fc.constantFrom<string>(ids[0], 'foreign'), journal: journals,
    ownerAlive: fc.constantFrom<boolean | undefined>(true, false, undefined),
  });
  fc.assert(fc.property(fc.array(runs, { maxLength: 5 }), (found) => {
    const plan = planReclaim(found, { bootId, wallMillis: now });
    assert.equal(plan.length, found.length);
    for (const [index, step] of plan.entries()) {
      const run = found[index];
      assert.ok(run !== undefined);
      if (step.do === 'end') assert.equal(run.ownerAlive, false);
      if (run.name === 'foreign' || !run.journal.ok) assert.equal(step.do, 'report');
      if (step.do === 'remove') {
        assert.ok(run.journal.ok && (run.journal.entries.length === 0 || run.ownerAlive === false));
      }
    }
  }), { numRuns: 1000 });
});
