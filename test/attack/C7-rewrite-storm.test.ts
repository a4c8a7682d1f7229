/**
 * C7: a function that writes, rewrites, punches and truncates its disk as fast as it can. Expected: no write reaches
 * the host's disk and nothing on the host grows: the only disk is read-only, and scratch is the guest's own memory,
 * bounded. Method: a storm in a real clone, and what the kernel counts for its VMM.
 */
import assert from 'node:assert/strict';
import { readFile, stat } from 'node:fs/promises';
import { test } from 'node:test';
import { Session } from '../../src/bridge/session.ts';
import { granted, inClone, kernelPolicy, newIdentity, script } from '../vm/guest.ts';
import { clock, mebibyte, openRig, ramBytes, workloadId } from '../vm/rig.ts';

/** QEMU beside the guest's RAM, bytes. */
const OVERHEAD = 512 * mebibyte;

test('a storm of rewrites stays in the guest\'s own bounded memory', async () => {
  const rig = await openRig();
  const template = await rig.template('shell');
  const before = await stat(template.state.ram);
  await inClone(rig, template, async (machine) => {
    await machine.resume();
    const session = new Session({ transport: machine.bridge, clock });
    await session.adopt(newIdentity());
    const { files = [] } = script(
      'cd /tmp; i=0; while [ $i -lt 6 ]; do',
      '  dd if=/dev/urandom of=f bs=64k count=400 2>/dev/null',
      '  dd if=/dev/zero of=f bs=64k count=100 conv=notrunc 2>/dev/null',
      '  fallocate -p -o 1M -l 8M f 2>/dev/null; truncate -s 1000 f; sync; i=$((i+1)); done',
      'blkdiscard /dev/vda 2>/dev/null && echo discarded',
      'dd if=/dev/zero of=/dev/vda count=1 2>/dev/null && echo wrote; echo end',
    );
    const limits = { ...granted, scratchBytes: 32 * mebibyte };
    const program = { argv: ['/function/f.sh'], env: ['PATH=/usr/bin:/bin'], uid: workloadId, gid: workloadId };
    await session.configure({ limits, ...program, ...(await kernelPolicy(template)) }, files);
    const { output } = await session.execute({ stdin: Buffer.alloc(0), wallMillis: 60_000 });
    assert.equal(String(output), 'end\n');
    const io = await readFile(`/proc/${machine.identity.pid}/io`, 'utf8');
    assert.match(io, /^write_bytes: 0$/m, io);
    const status = await readFile(`/proc/${machine.identity.pid}/status`, 'utf8');
    const peak = Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1]) * 1024;
    assert.ok(peak < ramBytes + OVERHEAD, `${peak / mebibyte} MiB`);
  });
  const after = await stat(template.state.ram);
  assert.deepEqual([after.size, after.blocks, after.mtimeMs], [before.size, before.blocks, before.mtimeMs]);
});
