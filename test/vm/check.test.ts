/**
 * Goal: `mayfly image check` passes an image that serves events and says of another one what is wrong with it. Method:
 * the real command line on an image of set-up, and on images that are broken on purpose.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createDisk } from '../../src/core/disk.ts';
import type { CheckedImage } from '../../src/conformance.ts';
import { openAdmin } from '../../src/image/admin.ts';
import { tarOf, writeLayout } from '../unit/image/oci/archive.ts';
import { sampleManifest } from '../unit/image/manifests.ts';
import { mayflyIn, ownHome } from './homes.ts';
import type { Ended, OwnHome } from './homes.ts';
import { home, random } from './rig.ts';

let own: OwnHome;
before(async () => {
  own = await ownHome();
});
after(() => own.remove());

const failures = ({ out }: Ended): string[] => {
  const { checks } = JSON.parse(out) as CheckedImage;
  return checks.filter(({ result }) => result === 'fail').map(({ name }) => name);
};

test('an image of set-up conforms, its warm runtime included', async () => {
  const checked = await mayflyIn(home, ['image', 'check', 'node', '--json']);
  assert.deepEqual([checked.code, failures(checked)], [0, []], checked.out + checked.err);
  const { ok, checks } = JSON.parse(checked.out) as CheckedImage;
  assert.equal(ok, true);
  const names = checks.map(({ name }) => name);
  for (const name of ['clone: proof equals profile', 'unique: random', 'limit: memory', 'guest: no network']) {
    assert.ok(names.includes(name), name);
  }
  const runtime = checks.find(({ name }) => name === 'runtime: handler');
  assert.equal(runtime?.result, 'pass');
});

test('an image for another processor boots, and is told to be useless with a way out', async () => {
  const header = Buffer.alloc(64);
  Buffer.from('7f454c46020101', 'hex').copy(header);
  header.writeUInt16LE(2, 16);
  header.writeUInt16LE(0x28, 18);
  const layer = await tarOf([{ name: 'app', text: header.toString('latin1'), mode: 0o755 }]);
  await writeLayout(join(own.folder, 'arm'), { layers: [layer], config: { Entrypoint: ['/app'] } });
  const imported = await own.mayfly(['image', 'import', `oci:${join(own.folder, 'arm')}:one`, '--as', 'arm']);
  assert.equal(imported.code, 0, imported.err);
  const checked = await own.mayfly(['image', 'check', 'arm']);
  assert.equal(checked.code, 3, checked.out + checked.err);
  assert.match(checked.out, /FAIL {2}guest: program \/app +\/app is for 32-bit ARM\n +→ Name a program for x86-64/);
  assert.match(checked.out, /does not conform: 1 of \d+ checks failed/);
});

test('bytes that are no file system, and bytes that have changed, end the check where they are found', async () => {
  const admin = openAdmin({ home: own.home, random, disk: createDisk(), now: Date.now, process: 'test' });
  const file = join(own.home, 'noise');
  await writeFile(file, randomBytes(1 << 20));
  const fileSystem = await admin.catalogue.addFileSystem(file, 'squashfs');
  await admin.catalogue.publish(sampleManifest({ name: 'noise', fileSystem, runtime: null }), 'noise:latest');
  const noise = await own.mayfly(['image', 'check', 'noise', '--json']);
  assert.equal(noise.code, 3, noise.err);
  assert.deepEqual(failures(noise), ['boot: template', 'clone: adopted and limited']);
  assert.match(noise.out, /E_TEMPLATE_BUILD: .*base image/);

  const path = admin.catalogue.blobs.path(fileSystem.digest);
  await chmod(path, 0o644);
  await writeFile(path, randomBytes(1 << 20));
  assert.deepEqual(failures(await own.mayfly(['image', 'check', 'noise', '--json'])), ['image: bytes']);
  assert.equal((await own.mayfly(['image', 'check', 'nothing'])).code, 2);
});
