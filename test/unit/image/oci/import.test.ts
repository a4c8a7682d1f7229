/**
 * Goal: layers come to what an engine would make of them, and whatever no image may contain is refused with its code.
 * Method: layers made here, imported for real, and the finished file system listed by squashfs-tools.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { gzipSync } from 'node:zlib';
import { importImage } from '../../../../src/image/oci/import.ts';
import type { MergedImage } from '../../../../src/image/oci/import.ts';
import { parseReference } from '../../../../src/image/oci/reference.ts';
import { tarOf, writeArchive, writeLayout } from './archive.ts';
import type { Item, Recipe } from './archive.ts';

let folder = '';
let count = 0;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mayfly-oci-'));
});
after(() => rm(folder, { recursive: true, force: true }));

interface Imported extends MergedImage {
  readonly kept: string;
}

async function bring(source: string, signal = new AbortController().signal): Promise<Imported> {
  count += 1;
  const kept = join(folder, `${count}.squashfs`);
  const scratch = join(folder, `scratch-${count}`);
  try {
    return await importImage(parseReference(source), { scratch, signal, say: () => {} }, async (image) => {
      await copyFile(image.file, kept);
      return { ...image, kept };
    });
  } finally {
    assert.ok(!(await readdir(folder)).includes(`scratch-${count}`), 'the scratch folder is still there');
  }
}

async function layout(recipe: Recipe): Promise<string> {
  count += 1;
  const path = join(folder, `layout-${count}`);
  await writeLayout(path, recipe);
  return path;
}

/** Lines of `drwxr-xr-x etc` or `lrwxrwxrwx a -> b`. */
function list(file: string): string[] {
  const text = execFileSync('unsquashfs', ['-d', '', '-lls', file], { encoding: 'utf8' });
  return text
    .split('\n')
    .filter((line) => /^[-dlcbps]/.test(line))
    .map((line) => {
      const [mode = '', , , , , ...name] = line.split(/\s+/);
      return `${mode} ${name.join(' ').replace(/^\//, '')}`;
    });
}

const cat = (file: string, path: string): string =>
  execFileSync('unsquashfs', ['-cat', file, path], { encoding: 'utf8' });

async function refused(code: string, ...layers: readonly (readonly Item[])[]): Promise<void> {
  const path = await layout({ layers: await Promise.all(layers.map(tarOf)) });
  await assert.rejects(bring(`oci:${path}`), { code }, JSON.stringify(layers));
}

const lower: readonly Item[] = [
  { name: './a/', type: 'directory', mode: 0o700 },
  { name: './a/kept', text: 'lower', mode: 0o644 },
  { name: './a/gone', text: 'secret' },
  { name: 'opaque/old', text: 'old' },
  { name: 'folder/inside', text: 'x' },
  { name: 'target', text: 'shared', mode: 0o4755 },
  { name: 'other', type: 'link', linkname: 'target' },
  { name: 'link', type: 'symlink', linkname: '../../etc/shadow' },
  { name: 'dev/sda', type: 'block-device' },
  { name: 'etc/machine-id', text: 'somebody' },
];
const upper: readonly Item[] = [
  { name: 'a/.wh.gone' },
  { name: 'a/new', text: 'upper' },
  { name: 'opaque/.wh..wh..opq' },
  { name: 'opaque/new', text: 'new' },
  { name: 'folder', text: 'a file now' },
  { name: '.wh.target' },
];

test('whiteouts, opaque folders, replaced folders, hard links of what is gone, in one file system', async () => {
  const path = await layout({ layers: [await tarOf(lower), await tarOf(upper)] });
  const image = await bring(`oci:${path}:one`);
  const lines = list(image.kept);
  assert.deepEqual(lines.filter((line) => !/ (dev|etc|function|proc|run|sys|tmp)(\/|$)/.test(line)).slice(1), [
    'drwx------ a',
    '-rw-r--r-- a/kept',
    '-rw-r--r-- a/new',
    '-rw-r--r-- folder',
    'lrwxrwxrwx link -> ../../etc/shadow',
    'drwxr-xr-x opaque',
    '-rw-r--r-- opaque/new',
    '-rwxr-xr-x other',
  ]);
  assert.equal(cat(image.kept, 'other'), 'shared');
  assert.equal(cat(image.kept, 'folder'), 'a file now');
  assert.equal(cat(image.kept, 'etc/machine-id'), '');
  assert.ok(lines.includes('drwxrwxrwt tmp') && lines.includes('drwxr-xr-x function'));
  assert.ok(!lines.some((line) => line.includes('sda')));
});

test('the same layers give the same bytes, from a layout and from an archive', async () => {
  const layers = [await tarOf(lower), await tarOf(upper)];
  const archive = join(folder, 'saved.tar');
  await writeArchive(archive, { layers });
  const one = await bring(`oci:${await layout({ layers })}`);
  // Times have seconds: whatever takes the time of day must differ now.
  await setTimeout(1100);
  const two = await bring(`docker-archive:${archive}:test:one`);
  assert.ok((await readFile(one.kept)).equals(await readFile(two.kept)));
});

test('devices, pipes, traversal, links in paths and duplicates are refused', async () => {
  await refused('E_IMAGE_UNSAFE', [{ name: 'disk', type: 'block-device' }]);
  await refused('E_IMAGE_UNSAFE', [{ name: 'tty', type: 'character-device' }]);
  await refused('E_IMAGE_UNSAFE', [{ name: 'pipe', type: 'fifo' }]);
  await refused('E_IMAGE_UNSAFE', [{ name: '../out', text: 'x' }]);
  await refused('E_IMAGE_UNSAFE', [{ name: 'a/../../out', text: 'x' }]);
  await refused('E_IMAGE_UNSAFE', [{ name: '/etc/passwd', text: 'x' }]);
  await refused('E_IMAGE_UNSAFE', [{ name: 'hard', type: 'link', linkname: '../out' }]);
  await refused('E_IMAGE_UNSAFE', [
    { name: 'l', type: 'symlink', linkname: '/' },
    { name: 'l/etc/cron', text: 'x' },
  ]);
  await refused('E_IMAGE_UNSAFE', [
    { name: 'l/x', text: 'x' },
    { name: 'l', type: 'symlink', linkname: '/' },
  ]);
  await refused('E_IMAGE_UNSAFE', [{ name: 'l', type: 'symlink', linkname: '/' }], [{ name: 'l/x', text: 'x' }]);
  await refused('E_IMAGE_UNSAFE', [
    { name: 'twice', text: '1' },
    { name: './twice', text: '2' },
  ]);
  await refused('E_IMAGE_UNSAFE', [{ name: 'a/.wh.../x', text: 'x' }]);
  await refused('E_IMAGE_TOO_LARGE', [{ name: `${'n'.repeat(256)}`, text: 'x' }]);
  await refused('E_IMAGE_UNSUPPORTED', [{ name: 'hard', type: 'link', linkname: 'nowhere' }]);
});

test('a bomb, a wrong digest, a cut-off layer, a foreign platform and a missing tag have their codes', async () => {
  const bomb = await tarOf([{ name: 'zeros', text: '\0'.repeat(96 * 1024 * 1024) }]);
  await assert.rejects(bring(`oci:${await layout({ layers: [bomb] })}`), { code: 'E_IMAGE_TOO_LARGE' });
  const layer = await tarOf(lower);
  const flipped = (bytes: Buffer): Buffer => Buffer.from(bytes.map((byte, at) => (at === 60 ? byte ^ 1 : byte)));
  for (const damage of [(bytes: Buffer) => bytes.subarray(0, -20), flipped]) {
    const path = await layout({ layers: [layer] });
    const blobs = join(path, 'blobs', 'sha256');
    for (const name of await readdir(blobs)) {
      const bytes = await readFile(join(blobs, name));
      if (bytes.equals(gzipSync(layer))) await writeFile(join(blobs, name), damage(bytes));
    }
    await assert.rejects(bring(`oci:${path}`), { code: 'E_IMAGE_CORRUPT' });
  }
  const arm = await layout({ layers: [layer], architecture: 'arm64' });
  await assert.rejects(bring(`oci:${arm}`), { code: 'E_IMAGE_PLATFORM' });
  await assert.rejects(bring(`oci:${arm}:two`), { code: 'E_IMAGE_SOURCE' });
  await assert.rejects(bring(`oci:${join(folder, 'nowhere')}`), { code: 'E_IMAGE_SOURCE' });
});

test("the command is found along the image's own PATH and through its links", async () => {
  const layer = await tarOf([
    { name: 'usr/bin/tool', text: 'x', mode: 0o755 },
    { name: 'bin', type: 'symlink', linkname: 'usr/bin' },
  ]);
  const config = { Entrypoint: ['tool', '-v'], Cmd: ['all'], Env: ['PATH=/none:/bin', 'A=b'] };
  const { command } = await bring(`oci:${await layout({ layers: [layer], config })}`);
  assert.deepEqual(command, { entrypoint: ['/bin/tool', '-v'], cmd: ['all'], env: ['PATH=/none:/bin', 'A=b'] });
  const missing = await layout({ layers: [layer], config: { Cmd: ['nothing'] } });
  await assert.rejects(bring(`oci:${missing}`), { code: 'E_IMAGE_CORRUPT' });
});

test('an import that is interrupted leaves nothing', async () => {
  const path = await layout({ layers: [await tarOf(lower)] });
  await assert.rejects(bring(`oci:${path}`, AbortSignal.abort()), { code: 'E_INTERRUPTED' });
});
