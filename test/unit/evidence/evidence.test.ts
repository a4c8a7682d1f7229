/** Goal: records of parallel processes form one chain, and no edit, removal or reordering goes unnoticed (H5). */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createDisk } from '../../../src/core/disk.ts';
import { MayflyError } from '../../../src/core/errors.ts';
import { verifyChain } from '../../../src/evidence/chain.ts';
import type { EvidenceDraft } from '../../../src/evidence/record.ts';
import { hasEvidence, sealEvidence } from '../../../src/evidence/seal.ts';

const home = await mkdtemp(join(tmpdir(), 'mayfly-evidence-'));
after(() => rm(home, { recursive: true }));
const disk = createDisk();
const clock = { wallNanos: () => 1_732_446_000_000_000_000n };

function draft(runId: string): EvidenceDraft {
  return {
    runId, acceptedAt: '2024-11-24T11:00:00.000Z', event: { digest: 'sha256:0', bytes: 2 },
    code: { digest: 'sha256:1', bytes: 9, files: 1 }, profile: null, origin: null, attempts: [],
    delivered: false, proof: null, timeline: [], usage: null, network: null,
    verdict: { kind: 'accepted' }, output: null,
    release: { verified: true, released: [], left: [] },
  };
}

async function chainOf(name: string, count: number): Promise<{ folder: string; file: string; lines: string[] }> {
  const folder = join(home, name);
  for (let i = 0; i < count; i++) await sealEvidence({ disk, clock, folder }, draft(`run-${i}`));
  const file = join(folder, 'evidence.jsonl');
  return { folder, file, lines: (await readFile(file, 'utf8')).trimEnd().split('\n') };
}

const text = (lines: readonly string[]): string => lines.map((line) => `${line}\n`).join('');

test('a chain of records verifies, and its head is the hash that sealing returned', async () => {
  const { folder, file } = await chainOf('good', 4);
  const { hash, record } = await sealEvidence({ disk, clock, folder }, draft('last'));
  assert.equal(record.sequence, 4);
  const check = verifyChain(await readFile(file, 'utf8'), { witness: hash });
  assert.deepEqual(check, { ok: true, records: 5, head: hash, torn: false });
});

test('edited, removed, inserted, reordered: found at that record', async () => {
  const { lines } = await chainOf('bad', 5);
  assert.ok(verifyChain(text(lines)).ok);
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] ?? '';
    const edited = verifyChain(text(lines.with(at, line.replace('"bytes":2', '"bytes":3'))), {
      witness: (await sealHashes('bad'))[4] ?? '',
    });
    assert.equal(edited.ok, false, `edited ${at}`);
    if (at < lines.length - 1) {
      const removed = verifyChain(text(lines.toSpliced(at, 1)));
      assert.ok(!removed.ok && removed.line === at + 1, `removed ${at}`);
      const swapped = verifyChain(text(lines.with(at, lines[at + 1] ?? '').with(at + 1, line)));
      assert.ok(!swapped.ok && swapped.line === at + 1, `swapped ${at}`);
    }
    assert.equal(verifyChain(text(lines.toSpliced(at, 0, line))).ok, false, `inserted ${at}`);
  }
});

async function sealHashes(name: string): Promise<string[]> {
  const { createHash } = await import('node:crypto');
  const lines = (await readFile(join(home, name, 'evidence.jsonl'), 'utf8')).trimEnd().split('\n');
  return lines.map((line) => `sha256:${createHash('sha256').update(line).digest('hex')}`);
}

test('the last record is protected by a hash that is known from elsewhere, and only by that', async () => {
  const { lines } = await chainOf('tail', 3);
  const hashes = await sealHashes('tail');
  const cut = text(lines.slice(0, 2));
  assert.ok(verifyChain(cut).ok);
  assert.equal(verifyChain(cut, { witness: hashes[2] ?? '' }).ok, false);
  assert.equal(verifyChain(cut, { witness: hashes[1] ?? '' }).ok, true);
});

test('another spelling of the same record is not the record', async () => {
  const { lines } = await chainOf('spelling', 1);
  assert.equal(verifyChain(text([(lines[0] ?? '').replace('{', '{ ')])).ok, false);
});

test('a torn last line was never acknowledged: the next writer cuts it off', async () => {
  const { folder, file } = await chainOf('torn', 2);
  for (const torn of ['{"half":', 'x'.repeat(500)]) {
    await appendFile(file, torn);
    assert.ok((verifyChain(await readFile(file, 'utf8')) as { torn: boolean }).torn);
    await sealEvidence({ disk, clock, folder }, draft('after'));
    const check = verifyChain(await readFile(file, 'utf8'));
    assert.ok(check.ok && !check.torn);
  }
  const only = join(home, 'only-torn');
  await disk.makeFolder(only);
  await writeFile(join(only, 'evidence.jsonl'), '{"ha');
  const { record } = await sealEvidence({ disk, clock, folder: only }, draft('first'));
  assert.equal(record.sequence, 0);
  assert.ok(verifyChain(await readFile(join(only, 'evidence.jsonl'), 'utf8')).ok);
});

test('a last line that is no record stops the chain loudly instead of starting another', async () => {
  const folder = join(home, 'foreign');
  await disk.makeFolder(folder);
  await writeFile(join(folder, 'evidence.jsonl'), 'hello\n');
  await assert.rejects(sealEvidence({ disk, clock, folder }, draft('x')), { code: 'E_EVIDENCE_WRITE' });
  assert.equal(await readFile(join(folder, 'evidence.jsonl'), 'utf8'), 'hello\n');
});

test('a disk that fails is E_EVIDENCE_WRITE, and the lock is given back', async () => {
  const folder = join(home, 'failing');
  for (const step of ['makeFolder', 'lock', 'tail', 'append'] as const) {
    const failing = { ...disk, [step]: () => Promise.reject(new Error('ENOSPC: no space left')) };
    await assert.rejects(sealEvidence({ disk: failing, clock, folder }, draft('x')), (thrown) =>
      thrown instanceof MayflyError && thrown.code === 'E_EVIDENCE_WRITE' && thrown.message.includes('ENOSPC'));
  }
  await sealEvidence({ disk, clock, folder }, draft('works'));
});

test('finds the record of a run', async () => {
  const { folder } = await chainOf('search', 3);
  assert.equal(await hasEvidence(disk, folder, 'run-1'), true);
  assert.equal(await hasEvidence(disk, folder, 'run-'), false);
  assert.equal(await hasEvidence(disk, join(home, 'nowhere'), 'run-1'), false);
});

test('four processes at once make one chain; one that is killed while it holds the lock stops nobody', async () => {
  const folder = join(home, 'parallel');
  const root = new URL('../../../src/', import.meta.url);
  const writer = `
    const { createDisk } = await import('${root}core/disk.ts');
    const { sealEvidence } = await import('${root}evidence/seal.ts');
    const draft = ${JSON.stringify(draft('RUN'))};
    for (let i = 0; i < 8; i++) {
      await sealEvidence({ disk: createDisk(), clock: { wallNanos: () => 0n }, folder: process.argv[1] }, draft);
    }`;
  const holder = `
    const { createDisk } = await import('${root}core/disk.ts');
    const disk = createDisk();
    await disk.makeFolder(process.argv[1]);
    await disk.lock(process.argv[1] + '/lock', 1000);
    process.kill(process.pid, 'SIGKILL');`;
  await run(holder, folder);
  const statuses = await Promise.all([1, 2, 3, 4].map(() => run(writer, folder)));
  assert.deepEqual(statuses, [0, 0, 0, 0]);
  const check = verifyChain(await readFile(join(folder, 'evidence.jsonl'), 'utf8'));
  assert.ok(check.ok && check.records === 32, JSON.stringify(check));
});

function run(script: string, argument: string): Promise<number | null> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', script, argument], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  return new Promise((resolve, reject) => child.once('error', reject).once('exit', resolve));
}
