/**
 * Goal: an image that is built above another one serves events, stores only what is its own, and its machine has one
 * more read-only disk and nothing else. Method: the example, built and run by the real command line, then looked at.
 */
import assert from 'node:assert/strict';
import { mkdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { openTemplates } from '../../src/clone/template.ts';
import type { QemuProcess } from '../../src/clone/vmm/process.ts';
import { openRepository } from '../../src/image/repository.ts';
import { ownHome } from './homes.ts';
import type { OwnHome } from './homes.ts';
import { clock, openRig, ramBytes, workloadId } from './rig.ts';

const examples = join(import.meta.dirname, '../../examples');
let own: OwnHome;
before(async () => {
  own = await ownHome('shell');
});
after(() => own.remove());

interface Built {
  readonly digest: string;
  readonly layers: number;
  readonly layerBytes: number;
  readonly unchanged: boolean;
}

test('the example is built above shell, stores only its layer, and answers its event', async () => {
  const args = ['image', 'build', '-f', join(examples, 'build/Mayflyfile'), '--as', 'sums', '--json'];
  const first = await own.mayfly(args);
  assert.equal(first.code, 0, first.err);
  const built = JSON.parse(first.out) as Built;
  assert.deepEqual([built.layers, built.unchanged], [1, false]);
  assert.ok(built.layerBytes <= 8192, `${built.layerBytes} bytes`);
  const again = JSON.parse((await own.mayfly(args)).out) as Built;
  assert.deepEqual([again.digest, again.unchanged], [built.digest, true]);

  const ran = await own.mayfly(['run', '--image', 'sums', '--event', join(examples, 'build/event.json')]);
  assert.deepEqual([ran.code, ran.out], [0, '{"sum":42}\n'], ran.err);
});

test('the machine of such an image has a second read-only disk and nothing else', async () => {
  const rig = await openRig();
  const repository = await openRepository(own.home);
  const templates = openTemplates({
    home: own.home, compile: rig.compile, vmm: rig.vmm, clock, workloadId, builder: `${process.pid}-0`,
    kernel: repository.kernel, initramfs: repository.initramfs, alive: async () => true,
  });
  const template = await templates.get(await repository.images.get('sums'), ramBytes);
  const machine = (await rig.vmm.spawn(template.state)) as QemuProcess;
  try {
    const block = (await machine.qmp.execute('query-block')) as unknown as { inserted: { ro: boolean } }[];
    assert.deepEqual(block.map(({ inserted }) => inserted.ro), [true, true]);
    type Bus = { readonly devices: readonly { readonly id: { readonly device: number; readonly vendor: number } }[] };
    const buses = (await machine.qmp.execute('query-pci')) as unknown as readonly Bus[];
    const ids = buses.flatMap(({ devices }) => devices.map(({ id }) => id));
    const found = ids.map(({ vendor, device }) => `${vendor.toString(16)}:${device.toString(16)}`);
    assert.deepEqual(found.sort(), ['1af4:1001', '1af4:1001', '1af4:1003', '8086:2918', '8086:29c0']);
  } finally {
    await machine.kill();
  }
});

test('three layers above a base: the highest wins, links of the base lead on, nothing can be written', async () => {
  const at = join(own.folder, 'layers');
  await mkdir(join(at, 'bin'), { recursive: true });
  await writeFile(join(at, 'which'), 'two\n');
  await writeFile(join(at, 'bin/two'), '#!/bin/sh\ncat /which\n', { mode: 0o755 });
  await symlink('/bin/two', join(at, 'bin/other'));
  assert.equal((await own.mayfly(['image', 'build', '--from-dir', at, '--base', 'sums', '--as', 'two'])).code, 0);
  await writeFile(join(at, 'which'), 'three\n');
  const third = await own.mayfly(['image', 'build', '--from-dir', at, '--base', 'two', '--as', 'three', '--json']);
  assert.equal((JSON.parse(third.out) as Built).layers, 3, third.err);
  const script = '/usr/bin/two && other && sum </dev/null; touch /which /app/x 2>/dev/null || echo refused';
  const ran = await own.mayfly(['run', '--image', 'three', '--raw', '--program', '/bin/sh', '--', '-c', script]);
  assert.equal(ran.out, 'three\nthree\nrefused\n', ran.err);
  const fourth = await own.mayfly(['image', 'build', '--from-dir', at, '--base', 'three', '--as', 'four']);
  assert.equal(fourth.code, 2, fourth.err);
});
