/**
 * Goal: records of parallel processes form one chain, and no edit, removal, reordering or foreign signature goes
 * unnoticed, and the first bad record is named (H5).
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { generateKeyPairSync, sign } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createDisk } from '../../../src/core/disk.ts';
import { MayflyError } from '../../../src/core/errors.ts';
import { verifyChain as verifyWith } from '../../../src/evidence/chain.ts';
import { makeHead } from '../../../src/evidence/record.ts';
import type { EvidenceDraft } from '../../../src/evidence/record.ts';
import { hasEvidence, objectPath, sealEvidence } from '../../../src/evidence/seal.ts';
import { keyIdOf } from '../../../src/image/envelope.ts';
import type { Signer } from '../../../src/image/envelope.ts';
import { verifyEvidence } from '../../../src/evidence/read.ts';
import { canonicalJson, digestOf } from '../../../src/core/json.ts';

const home = await mkdtemp(join(tmpdir(), 'mayfly-evidence-'));
after(() => rm(home, { recursive: true }));
const disk = createDisk();
const clock = { wallNanos: () => 1_732_446_000_000_000_000n };

function newSigner(): { signer: Signer; keys: ReadonlyMap<string, KeyObject>; pem: string } {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const signer = { keyId: keyIdOf(publicKey), sign: (message: Buffer) => sign(null, message, privateKey) };
  const pem = String(privateKey.export({ type: 'pkcs8', format: 'pem' }));
  return { signer, keys: new Map([[signer.keyId, publicKey]]), pem };
}

const { signer, keys, pem } = newSigner();

function verifyChain(lines: string, options: { witness?: string; head?: string } = {}): ReturnType<typeof verifyWith> {
  // Without a head of its own, a chain of more than one record is refused: tests of lines give one that fits nothing.
  const head = options.head ?? headOf(lines);
  return verifyWith(lines, { keys, ...options, ...(head === undefined ? {} : { head }) });
}

/** What the last writer would have signed. */
function headOf(lines: string): string | undefined {
  const last = lines.slice(0, lines.lastIndexOf('\n')).split('\n');
  const line = last.at(-1) ?? '';
  if (line === '') return undefined;
  return canonicalJson(makeHead(last.length - 1, digestOf(line), signer));
}


function draft(runId: string): EvidenceDraft {
  return {
    runId, acceptedAt: '2024-11-24T11:00:00.000Z', event: { digest: 'sha256:0', bytes: 2 },
    code: { digest: 'sha256:1', bytes: 9, files: 1 }, profile: null, origin: null, attempts: [],
    delivered: false, proof: null, timeline: [], usage: null, network: null,
    verdict: { kind: 'accepted' }, output: null, snapshot: null,
    release: { verified: true, released: [], left: [] },
  };
}

async function chainOf(name: string, count: number): Promise<{ folder: string; file: string; lines: string[] }> {
  const folder = join(home, name);
  for (let i = 0; i < count; i++) await sealEvidence({ disk, clock, signer, folder }, draft(`run-${i}`));
  const file = join(folder, 'evidence.jsonl');
  return { folder, file, lines: (await readFile(file, 'utf8')).trimEnd().split('\n') };
}

const text = (lines: readonly string[]): string => lines.map((line) => `${line}\n`).join('');

test('a chain of records verifies, and its head is the hash that sealing returned', async () => {
  const { folder, file } = await chainOf('good', 4);
  const { hash, record } = await sealEvidence({ disk, clock, signer, folder }, draft('last'));
  assert.equal(record.sequence, 4);
  const check = verifyChain(await readFile(file, 'utf8'), { witness: hash });
  assert.deepEqual(check, { ok: true, records: 5, unsigned: 0, head: hash, torn: false });
  assert.deepEqual(await verifyEvidence({ disk, folder, keys }), check);
});

test('edited, removed, inserted, reordered: found at that record', async () => {
  const { lines } = await chainOf('bad', 5);
  assert.ok(verifyChain(text(lines)).ok);
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at] ?? '';
    const edited = verifyChain(text(lines.with(at, line.replace('"bytes":2', '"bytes":3'))));
    assert.ok(!edited.ok && edited.line === at + 1 && edited.runId === `run-${at}`, `edited ${at}`);
    assert.match(edited.reason, /changed after it was signed/);
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

test('records cut off the end are missed, by the signed head or by a hash from elsewhere', async () => {
  const { lines, folder, file } = await chainOf('tail', 3);
  const hashes = await sealHashes('tail');
  const cut = text(lines.slice(0, 2));
  await writeFile(file, cut);
  const missed = await verifyEvidence({ disk, folder, keys });
  assert.deepEqual(missed, { ok: false, line: 3, reason: '1 record is missing at the end' });
  await rm(join(folder, 'head.json'));
  assert.match(reasonOf(await verifyEvidence({ disk, folder, keys })), /head.json is missing/);
  await writeFile(join(folder, 'head.json'), headOf(cut)?.replace('"sequence":1', '"sequence":0') ?? '');
  assert.match(reasonOf(await verifyEvidence({ disk, folder, keys })), /not what this machine signed/);
  assert.ok(verifyChain(cut).ok, 'with a head of that time, and nothing known from elsewhere');
  assert.equal(verifyChain(cut, { witness: hashes[2] ?? '' }).ok, false);
  assert.equal(verifyChain(cut, { witness: hashes[1] ?? '' }).ok, true);
});

function reasonOf(check: ReturnType<typeof verifyWith>): string {
  return check.ok ? 'nothing is wrong' : check.reason;
}

test('a chain of somebody else is not ours, and unsigned records only come first', async () => {
  const { lines } = await chainOf('foreign-key', 2);
  const other = newSigner();
  assert.match(reasonOf(verifyWith(text(lines), { keys: other.keys })), /signed by another key/);
  const old = { evidenceVersion: 1, sequence: 0, previous: `sha256:${'0'.repeat(64)}`, runId: 'r' };
  const first = canonicalJson(old);
  const check = verifyWith(`${first}\n`, { keys });
  assert.ok(check.ok && check.unsigned === 1);
  const last = canonicalJson({ ...old, sequence: 2, previous: digestOf(lines[1] ?? '') });
  assert.match(reasonOf(verifyChain(text([...lines, last]))), /is not signed, and records before it are/);
});

test('what stands beside a record is part of it: missing or changed, it is found', async () => {
  const folder = join(home, 'objects');
  const proof = { facts: ['uid=1000', 'gid=1000'], differences: [] };
  for (const name of ['a', 'b']) await sealEvidence({ disk, clock, signer, folder }, { ...draft(name), proof });
  assert.ok((await verifyEvidence({ disk, folder, keys })).ok);
  const digest = digestOf(canonicalJson(proof.facts));
  const path = objectPath(folder, digest);
  await writeFile(path, '["uid=0"]');
  const changed = await verifyEvidence({ disk, folder, keys });
  assert.ok(!changed.ok && changed.line === 1 && changed.reason.includes(digest));
  await rm(path);
  assert.equal((await verifyEvidence({ disk, folder, keys })).ok, false);
});

test('a record of an ordinary run has less than 4 KB', async () => {
  const folder = join(home, 'size');
  const stages = [
    'profile', 'template', 'clone', 'restore', 'uniqueness', 'proof', 'execute', 'validate', 'release',
  ] as const;
  const timeline = stages.map((stage) => ({ stage, at: 123.456, millis: 123.456, attempt: 1 }));
  const facts = Array.from({ length: 40 }, (_, at) => `mount.${at}=tmpfs nodev,noexec,nosuid,ro`);
  const { record } = await sealEvidence({ disk, clock, signer, folder }, {
    ...draft('01M86TGAECYAE9HB802MYBC0ST'), timeline, proof: { facts, differences: [] },
    origin: {
      isolation: 'tcg', vmm: 'QEMU 7.2.22', kernel: digestOf('k'), agent: digestOf('a'),
      imageName: 'node', imageDigest: digestOf('i'),
    },
    usage: { exitCode: 0, signal: 0, cpuMicros: 1, memoryPeakBytes: 1, oomKills: 0, pidsMaxHits: 0 },
    release: { verified: true, released: ['machine 123456', 'bridge of machine 123456'], left: [] },
  });
  const bytes = canonicalJson(record).length;
  assert.ok(bytes < 4096, `${bytes}`);
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
    await sealEvidence({ disk, clock, signer, folder }, draft('after'));
    const check = verifyChain(await readFile(file, 'utf8'));
    assert.ok(check.ok && !check.torn);
  }
  const only = join(home, 'only-torn');
  await disk.makeFolder(only);
  await writeFile(join(only, 'evidence.jsonl'), '{"ha');
  const { record } = await sealEvidence({ disk, clock, signer, folder: only }, draft('first'));
  assert.equal(record.sequence, 0);
  assert.ok(verifyChain(await readFile(join(only, 'evidence.jsonl'), 'utf8')).ok);
});

test('a last line that is no record stops the chain loudly instead of starting another', async () => {
  const folder = join(home, 'foreign');
  await disk.makeFolder(folder);
  await writeFile(join(folder, 'evidence.jsonl'), 'hello\n');
  await assert.rejects(sealEvidence({ disk, clock, signer, folder }, draft('x')), { code: 'E_EVIDENCE_WRITE' });
  assert.equal(await readFile(join(folder, 'evidence.jsonl'), 'utf8'), 'hello\n');
});

test('a disk that fails is E_EVIDENCE_WRITE, and the lock is given back', async () => {
  const folder = join(home, 'failing');
  for (const step of ['makeFolder', 'lock', 'tail', 'append'] as const) {
    const failing = { ...disk, [step]: () => Promise.reject(new Error('ENOSPC: no space left')) };
    await assert.rejects(sealEvidence({ disk: failing, clock, signer, folder }, draft('x')), (thrown) =>
      thrown instanceof MayflyError && thrown.code === 'E_EVIDENCE_WRITE' && thrown.message.includes('ENOSPC'));
  }
  await sealEvidence({ disk, clock, signer, folder }, draft('works'));
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
    const { createPrivateKey, sign } = await import('node:crypto');
    const key = createPrivateKey(${JSON.stringify(pem)});
    const signer = { keyId: '${signer.keyId}', sign: (message) => sign(null, message, key) };
    const draft = ${JSON.stringify(draft('RUN'))};
    for (let i = 0; i < 8; i++) {
      const clock = { wallNanos: () => 0n };
      await sealEvidence({ disk: createDisk(), clock, signer, folder: process.argv[1] }, draft);
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
