/** Goal: a journal comes back as it was written, a torn tail is forgotten, damage is never overlooked. */
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { createDisk } from '../../../src/core/disk.ts';
import type { JournalEntry } from '../../../src/journal/entry.ts';
import { openJournal, readJournal, replayJournal } from '../../../src/journal/journal.ts';

const home = await mkdtemp(join(tmpdir(), 'mayfly-journal-'));
after(() => rm(home, { recursive: true }));
const disk = createDisk();

const entries: readonly JournalEntry[] = [
  {
    kind: 'accepted', journalVersion: 1, runId: 'R', owner: { pid: 1, startTicks: '2', bootId: 'b' },
    acceptedAt: '2024-11-24T11:00:00.000Z', event: { digest: 'sha256:0', bytes: 1 },
  },
  { kind: 'profiled', digest: 'sha256:1' },
  { kind: 'cloning', attempt: 1 },
  { kind: 'holding', holding: { kind: 'machine', pid: 77, startTicks: '12345678901234567890' } },
  { kind: 'delivering' },
];

async function written(name: string): Promise<Buffer> {
  const journal = await openJournal(disk, join(home, name));
  await Promise.all(entries.map((entry, index) => journal.append(entry, { sync: index === 0 })));
  return await readFile(join(home, name, 'journal'));
}

test('entries come back in the order of their appends, from a file that is nobody else’s', async () => {
  await written('whole');
  assert.deepEqual(await readJournal(disk, join(home, 'whole')), { ok: true, entries, torn: false });
  assert.equal((await stat(join(home, 'whole', 'journal'))).mode & 0o777, 0o600);
  assert.equal((await stat(join(home, 'whole'))).mode & 0o777, 0o700);
});

test('every truncation loses whole entries from the end and nothing else', async () => {
  const bytes = await written('torn');
  for (let length = 0; length <= bytes.length; length++) {
    const replay = replayJournal(bytes.subarray(0, length));
    assert.ok(replay.ok, `cut at ${length}`);
    assert.deepEqual(replay.entries, entries.slice(0, replay.entries.length));
    assert.equal(replay.torn, length > 0 && bytes[length - 1] !== 0x0a);
  }
});

test('property: a flipped bit in any complete line is found', async () => {
  const bytes = await written('flipped');
  fc.assert(fc.property(fc.nat({ max: bytes.length - 2 }), fc.nat({ max: 7 }), (at, bit) => {
    const damaged = Buffer.from(bytes);
    damaged.writeUInt8(damaged.readUInt8(at) ^ (1 << bit), at);
    const replay = replayJournal(damaged);
    assert.ok(!replay.ok);
  }), { numRuns: 1000 });
});

test('a folder without a journal has no entries; removing takes the folder', async () => {
  assert.deepEqual(await readJournal(disk, join(home, 'none')), { ok: true, entries: [], torn: false });
  const journal = await openJournal(disk, join(home, 'gone'));
  await journal.append({ kind: 'delivering' });
  await journal.remove();
  assert.equal(await disk.exists(join(home, 'gone')), false);
});

test('after a failed append nothing more is written', async () => {
  let calls = 0;
  const failing = { ...disk, append: () => Promise.reject(new Error(`disk full ${++calls}`)) };
  const journal = await openJournal(failing, join(home, 'full'));
  await assert.rejects(journal.append({ kind: 'delivering' }), /disk full 1/);
  await assert.rejects(journal.append({ kind: 'delivering' }), /disk full 1/);
});

test('a journal larger than any run’s is not read', async () => {
  await disk.makeFolder(join(home, 'huge'));
  await writeFile(join(home, 'huge', 'journal'), Buffer.alloc(2 * 1024 * 1024));
  await assert.rejects(readJournal(disk, join(home, 'huge')), { code: 'EFBIG' });
});
