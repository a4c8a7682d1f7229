/**
 * Goal: a listed file is found however it is packed, within a budget, and whoever hides behind packing is scored for
 * it. Method: archives made by Python's zipfile and tarfile and by gzip, nested, cut off, encrypted and as bombs; YARA
 * with the real program.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { createDisk } from '../../../src/core/disk.ts';
import { limits } from '../../../src/core/limits.ts';
import { assess } from '../../../src/intel/assess.ts';
import { Intel } from '../../../src/intel/intel.ts';
import { observe } from '../../../src/intel/observe.ts';
import type { Observed } from '../../../src/intel/observe.ts';
import { unpack } from '../../../src/intel/unpack.ts';
import { indicator, NOW, snapshotOf } from './rig.ts';

const BAD = Buffer.from('MARKER of a file that a feed lists');
/** All of them by one Python, which takes longer to start than to pack. */
const MAKE = `
import zipfile, tarfile
with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as z: z.write("bad.bin"); z.write("note.txt")
with tarfile.open("a.tar", "w") as t: t.add("in"); t.add("bad.bin"); t.add("note.txt")
with zipfile.ZipFile("nested.zip", "w") as z: z.write("a.tar")
with zipfile.ZipFile("many.zip", "w") as z:
  for i in range(${limits.attachmentsMax + 9}): z.writestr(str(i), str(i))
with zipfile.ZipFile("liar.zip", "w", zipfile.ZIP_DEFLATED) as z: z.writestr("zeros", bytes(20*1024*1024))
b = bytearray(open("liar.zip", "rb").read())
at = b.rindex(b"PK\\x01\\x02"); b[at+24:at+28] = (10).to_bytes(4, "little")
open("liar.zip", "wb").write(b)
`;

let folder = '';
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'mayfly-unpack-'));
  writeFileSync(join(folder, 'bad.bin'), BAD);
  writeFileSync(join(folder, 'note.txt'), 'go to http://inside.bad.example/ now');
  mkdirSync(join(folder, 'in'));
  execFileSync('python3', ['-c', MAKE], { cwd: folder });
});
after(() => rmSync(folder, { recursive: true, force: true }));

const sha256 = createHash('sha256').update(BAD).digest('hex');
const snapshot = snapshotOf([indicator({ kind: 'hash', value: sha256, severity: 'critical', confidence: 90 })]);
const BUDGET = { bytes: limits.attachmentBytesMax, members: limits.attachmentsMax };

const made = (name: string): Buffer => readFileSync(join(folder, name));

const look = async (content: Buffer): Promise<Observed> =>
  await observe({ value: { name: 'f', content: content.toString('base64') }, bytes: 100 });
const scoreOf = async (content: Buffer) => assess({ observed: await look(content), snapshot, nowSeconds: NOW });

test('a listed file is found in a zip, a tar, a gzip, and in one inside another', async () => {
  const [zip, tar, nested] = [made('a.zip'), made('a.tar'), made('nested.zip')];
  for (const [what, content] of Object.entries({ zip, tar, gzip: gzipSync(BAD), targz: gzipSync(tar), nested })) {
    const { score, matches } = await scoreOf(content);
    assert.equal(matches[0]?.value, sha256, what);
    assert.ok(score >= 90, what);
  }
  const { matches } = await scoreOf(nested);
  assert.equal(matches[0]?.where, 'content!a.tar!bad.bin');
  const { observables } = await look(zip);
  assert.ok(observables.some(({ value }) => value === 'inside.bad.example'), 'texts in members are read');
});

test('what is not looked at is a sign: too deep, too many, encrypted, or of a kind that is not opened', async () => {
  let deep: Buffer = BAD;
  for (let layer = 0; layer < limits.attachmentLayersMax + 2; layer++) deep = gzipSync(deep);
  const many = made('many.zip');
  const encrypted = Buffer.from(made('a.zip'));
  // The first member's flag in the table says that a key is needed.
  const table = encrypted.indexOf(Buffer.from('504b0102', 'hex'));
  encrypted.writeUInt16LE(encrypted.readUInt16LE(table + 8) | 1, table + 8);
  const seven = Buffer.concat([Buffer.from('377abcaf271c0004', 'hex'), Buffer.alloc(100, 7)]);
  for (const [what, content] of Object.entries({ deep, many, encrypted, seven })) {
    const { signs } = await look(content);
    assert.ok(signs.some(({ name }) => name === 'not-fully-seen'), `${what}: ${JSON.stringify(signs)}`);
  }
});

test('a bomb ends at the budget, whatever its table says, and is one', async () => {
  const from = performance.now();
  const zeros = gzipSync(Buffer.alloc(20 * 1024 * 1024));
  const liar = made('liar.zip');
  assert.ok((await look(zeros)).signs.some(({ name }) => name === 'archive-bomb'));
  const lying = await look(liar);
  assert.equal(lying.attachments.length, 1, 'a member that is more than it says is not taken');
  assert.ok(performance.now() - from < 20_000);
  const { members, left } = await unpack(made('a.zip'), 'application/zip', { bytes: 10, members: 5 });
  assert.deepEqual([members.length, left], [0, true]);
});

test('damage ends a member, not the assessment', async () => {
  for (const archive of [made('a.zip'), made('a.tar'), gzipSync(made('a.tar'))]) {
    for (let cut = 1; cut < archive.length; cut += Math.ceil(archive.length / 12)) {
      const type = archive[0] === 0x1f ? 'application/gzip' : 'application/x-tar';
      await unpack(archive.subarray(0, cut), type, BUDGET);
      const flipped = Buffer.from(archive);
      flipped.writeUInt8((flipped[cut] ?? 0) ^ 0xff, cut);
      await unpack(flipped, type, BUDGET);
    }
  }
});

test('base64 inside of a text is opened: the body of a mail, an encoded command', async () => {
  const long = Buffer.concat([BAD, Buffer.from(` ${'words '.repeat(30)}`)]);
  const listed = snapshotOf([
    indicator({ kind: 'hash', value: createHash('sha256').update(long).digest('hex'), confidence: 90 }),
  ]);
  const body = long.toString('base64').replace(/.{76}/g, '$&\r\n');
  const mail = `Content-Transfer-Encoding: base64\r\n\r\n${body}\r\n--b--`;
  for (const text of [mail, `powershell -NoProfile -EncodedCommand ${long.toString('base64')} -x`]) {
    const observed = await observe({ value: { text }, bytes: text.length });
    assert.deepEqual(observed.attachments.map(({ where }) => where), ['text block']);
    assert.equal(assess({ observed, snapshot: listed, nowSeconds: NOW }).matches.length, 1, text.slice(0, 20));
  }
  const plain = `${'an everyday sentence, '.repeat(50)} https://www.example.com/a/b/c?id=${'0123456789'.repeat(4)}`;
  assert.deepEqual((await observe({ value: { plain }, bytes: 100 })).attachments, []);
});

test('a name that promises another kind of file is a sign', async () => {
  const png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
  const signs = async (name: string) => (await observe({ value: { name, content: png }, bytes: 9 })).signs;
  assert.deepEqual((await signs('a.png')).map(({ name }) => name), []);
  assert.deepEqual((await signs('a.pdf')).map(({ name }) => name), ['type-mismatch']);
});

test('YARA sees members of archives and the event itself', async (t) => {
  const clock = {
    now: () => performance.now(),
    wallNanos: () => BigInt(NOW) * 1_000_000_000n,
    after(millis: number, fire: () => void) {
      const timer = setTimeout(fire, millis);
      return () => clearTimeout(timer);
    },
  };
  const random = { bytes: (size: number) => Buffer.alloc(size) };
  const intel = new Intel({ folder, disk: createDisk(), clock, random, environment: () => undefined });
  mkdirSync(join(folder, 'yara'));
  writeFileSync(join(folder, 'yara/a.yar'), 'rule marker { strings: $a = "MARKER" condition: $a }\n');
  const content = made('a.zip').toString('base64');
  const packed = await intel.assess({ value: { content }, bytes: 9 });
  if (packed.notes.some((note) => note.includes('not installed'))) return t.skip('yara is not installed here');
  assert.match(packed.assessment.reasons[0]?.text ?? '', /YARA rule marker at content!bad\.bin/);
  const text = Buffer.from('{"say":"MARKER"}');
  const plain = await intel.assess({ value: JSON.parse(text.toString()), bytes: text.length, text });
  assert.match(plain.assessment.reasons[0]?.text ?? '', /YARA rule marker at event/);
});
