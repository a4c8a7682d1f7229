/**
 * The trial boot that decides about KVM, exercised for real: the very code, with software emulation, since a machine
 * without working KVM must find that out just as surely. Goal: it boots the guest until its agent is ready, leaves
 * nothing, and ends with a coded verdict when there is too little time.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { chooseAccelerator } from '../../src/clone/accelerator.ts';
import { trialBoot } from '../../src/clone/trial.ts';
import { bootOnce } from '../../src/clone/vmm/qemu.ts';
import { createDisk } from '../../src/core/disk.ts';
import { MayflyError } from '../../src/core/errors.ts';
import { limits } from '../../src/core/limits.ts';
import { clock, inFolder, openRig, workloadId } from './rig.ts';
import type { Rig } from './rig.ts';

let rig: Rig;
before(async () => {
  rig = await openRig();
});

async function boot(folder: string, millisMax: number): Promise<void> {
  const { baseImage, kernel, initramfs } = await rig.spec(folder, 'shell');
  await trialBoot({
    folder, kernel, initramfs, baseImage, workloadId, millisMax, clock, disk: createDisk(),
    compile: rig.compile,
    boot: (spec, prepare) => bootOnce(rig.engine, spec, prepare),
  });
}

/** With a file in the place of the device, which opens, as a broken /dev/kvm does. */
async function choose(home: string, mode: 'auto' | 'kvm', millisMax: number): ReturnType<typeof chooseAccelerator> {
  const device = join(home, 'kvm');
  await writeFile(device, '');
  return await chooseAccelerator({
    mode, device, home, clock, hostBootId: 'b', kernelDigest: 'k', qemuVersion: 'q',
    trialBoot: () => boot(join(home, 'building-1-1-trial'), millisMax),
  });
}

test('a guest that boots until its agent is ready: verdict kept, folder gone', async () => {
  await inFolder(async (home) => {
    const verdict = await choose(home, 'auto', limits.bootMillisMax);
    assert.equal(verdict.isolation, 'kvm', verdict.why);
    assert.ok((verdict.trialMillis ?? 0) > 100, 'something has booted');
    assert.equal(existsSync(join(home, 'building-1-1-trial')), false);
    assert.match(await readFile(join(home, 'accelerator.json'), 'utf8'), /"isolation": "kvm"/);
  });
});

test('a guest that needs longer than it may: TCG and why, E_ACCELERATOR for a demand of KVM, folder gone', async () => {
  await inFolder(async (home) => {
    const verdict = await choose(home, 'auto', 100);
    assert.equal(verdict.isolation, 'tcg');
    assert.match(verdict.why, /opens, but a guest did not boot with it \(.*no HELLO within 100 ms/);
    assert.equal(existsSync(join(home, 'building-1-1-trial')), false);
    await assert.rejects(choose(home, 'kvm', 100), (thrown) => {
      return thrown instanceof MayflyError && thrown.code === 'E_ACCELERATOR' && /no HELLO/.test(thrown.message);
    });
  });
});
