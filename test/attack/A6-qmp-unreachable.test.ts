/**
 * A6: QMP controls a VMM completely. Expected: neither the guest, not even its kernel, nor another user has a way to
 * it: it is one end of a connected pair of sockets without a name. Method: from outside, everything that is a socket of
 * the VMM is looked at and tried; from inside, a guest whose kernel is hostile lists every channel that it has.
 */
import assert from 'node:assert/strict';
import { open, readdir, readFile, readlink } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { descriptors } from '../../src/clone/vmm/machine.ts';
import type { QemuProcess } from '../../src/clone/vmm/process.ts';
import { home, openRig } from '../vm/rig.ts';
import type { Rig } from '../vm/rig.ts';
import { openHostileGuest } from './hostile.ts';

let rig: Rig;
let machine: QemuProcess;

before(async () => {
  rig = await openRig();
  machine = (await rig.vmm.spawn((await rig.template('shell')).state)) as QemuProcess;
});
after(async () => { await machine?.kill(); });

test('the VMM listens nowhere, and its sockets have no name', async () => {
  const { pid } = machine.identity;
  const net = join('/proc', String(pid), 'net');
  const names = await readdir(`/proc/${pid}/fd`);
  const targets = await Promise.all(names.map((name) => readlink(`/proc/${pid}/fd/${name}`)));
  const inodes = new Set(targets.flatMap((target) => /^socket:\[(\d+)\]$/.exec(target)?.[1] ?? []));
  assert.ok(inodes.size >= 2, 'QMP and the bridge are sockets');
  if (rig.jail.confined) {
    for (const table of ['tcp', 'tcp6', 'udp', 'udp6', 'raw', 'packet']) {
      const lines = (await readFile(join(net, table), 'utf8').catch(() => '')).trim().split('\n').slice(1);
      assert.deepEqual(lines, [], `${table} of its own network namespace`);
    }
    const named = (await readFile(join(net, 'unix'), 'utf8')).trim().split('\n').slice(1);
    assert.deepEqual(named.filter((line) => /\s[@/]\S*$/.test(line)), [], 'no socket with a name in its namespace');
  }
  const ours = (await readFile('/proc/self/net/unix', 'utf8')).split('\n').map((line) => line.trim().split(/\s+/));
  const theirs = ours.filter(([, , , , , , inode = '']) => inodes.has(inode));
  assert.deepEqual(theirs.filter((columns) => columns.length > 7), [], 'nor in ours');
});

test('nothing below MAYFLY_HOME is a socket, and not even root can open a descriptor of it again', async () => {
  const entries = await readdir(home, { recursive: true, withFileTypes: true });
  assert.deepEqual(entries.filter((entry) => entry.isSocket()).map(({ name }) => name), []);
  const path = `/proc/${machine.identity.pid}/fd/${descriptors.qmp}`;
  await assert.rejects(open(path, 'r+'), { code: 'ENXIO' });
  const failure = await new Promise<NodeJS.ErrnoException>((resolve) => connect(path).once('error', resolve));
  assert.ok(['ECONNREFUSED', 'ENOTSOCK', 'EACCES', 'ENXIO'].includes(failure.code ?? ''), failure.code);
});

test('a guest whose kernel is hostile has one port, the bridge, and one console', async () => {
  const guest = await openHostileGuest();
  try {
    const { console } = await guest.attack('look');
    const has = console.split('\n').flatMap((line) => /hostile: has (\S+)/.exec(line)?.[1] ?? []);
    assert.deepEqual(has.filter((name) => name.startsWith('0000:')).length, 4, console);
    assert.deepEqual(has.filter((name) => name.startsWith('vport')), ['vport0p1'], console);
    assert.ok(has.includes('ttyS0'));
  } finally {
    await guest.close();
  }
});
