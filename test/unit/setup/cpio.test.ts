/** The initial RAM file system is what the kernel's cpio format says, and the same bytes every time. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { writeCpio } from '../../../scripts/setup/cpio.ts';
import type { CpioEntry } from '../../../scripts/setup/cpio.ts';

interface Read {
  readonly path: string;
  readonly mode: number;
  readonly numbers: readonly number[];
  readonly content: Buffer;
}

/** A reader written from Linux's Documentation/driver-api/early-userspace/buffer-format.rst, not from the writer. */
function readCpio(archive: Buffer): Read[] {
  const found: Read[] = [];
  let at = 0;
  while (at < archive.length) {
    assert.equal(archive.toString('latin1', at, at + 6), '070701');
    const numbers = Array.from({ length: 13 }, (_, i) =>
      Number.parseInt(archive.toString('latin1', at + 6 + 8 * i, at + 14 + 8 * i), 16),
    );
    const [, mode = 0, , , , , bytes = 0, , , , , nameBytes = 0] = numbers;
    const path = archive.toString('utf8', at + 110, at + 110 + nameBytes - 1);
    assert.equal(archive[at + 110 + nameBytes - 1], 0, 'a name ends with NUL');
    const start = (at + 110 + nameBytes + 3) & ~3;
    found.push({ path, mode, numbers, content: archive.subarray(start, start + bytes) });
    at = (start + bytes + 3) & ~3;
    if (path === 'TRAILER!!!') break;
  }
  assert.equal(at, archive.length, 'nothing follows the trailer, and its padding is there');
  return found;
}

const entry: fc.Arbitrary<CpioEntry> = fc.oneof(
  fc.record({ kind: fc.constant('folder' as const), path: fc.stringMatching(/^[a-z/._-]{1,40}$/) }),
  fc.record({
    kind: fc.constant('file' as const),
    path: fc.stringMatching(/^[a-zé/._-]{1,40}$/),
    mode: fc.integer({ min: 0, max: 0o777 }),
    content: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  }),
);

test('what is written is read back, in order, owned by root and without a time', () => {
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 20 }), (entries) => {
      const read = readCpio(writeCpio(entries));
      assert.equal(read.pop()?.path, 'TRAILER!!!');
      assert.equal(read.length, entries.length);
      read.forEach(({ path, mode, numbers, content }, i) => {
        const wrote = entries[i];
        assert.equal(path, wrote?.path);
        const [inode, , uid, gid, , mtime] = numbers;
        assert.deepEqual([inode, uid, gid, mtime], [i + 1, 0, 0, 0]);
        if (wrote?.kind === 'file') {
          assert.equal(mode, 0o100000 | wrote.mode);
          assert.deepEqual(content, wrote.content);
        } else {
          assert.equal(mode, 0o040755);
          assert.equal(content.length, 0);
        }
      });
    }),
  );
});

test('the bytes of a given content never change', () => {
  const archive = writeCpio([
    { kind: 'folder', path: 'dev' },
    { kind: 'file', path: 'init', mode: 0o555, content: Buffer.from('#!agent') },
  ]);
  const digest = createHash('sha256').update(archive).digest('hex');
  assert.equal(digest, '8c516469bc907478fcb184f26b01b2061743075b15491d6b1c0293ca9356dcbc');
});
