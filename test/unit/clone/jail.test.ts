/**
 * Goal: a VMM is started through exactly the launchers that jail.ts promises, in the order that keeps the parent-death
 * signal, and no two live VMs share a uid. test/vm/engine.test.ts (A2) looks at the process that comes of it.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { openJail, templateGroup } from '../../../src/clone/jail.ts';
import { limits } from '../../../src/core/limits.ts';

const rlimits = ['prlimit', '--core=0', `--nofile=${limits.vmmOpenFiles}`, '--memlock=0', '--'];
const ifParentLives = ['sh', '-c', 'test "$PPID" = "$0" && exec "$@"', '7'];

test('with root: namespaces, rlimits, then uid, capabilities and the signal, and QEMU last', () => {
  const jail = openJail({ euid: 0, pid: 7 });
  const { uid, gid, command } = jail.take();
  assert.equal(jail.confined, true);
  assert.deepEqual([uid, gid], [2_000_000_000 + 7 * 64, templateGroup]);
  assert.deepEqual(command, [
    'unshare', '--net', '--ipc', '--', ...rlimits,
    'setpriv', `--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', '--inh-caps=-all', '--bounding-set=-all',
    '--pdeathsig', 'KILL', '--no-new-privs', '--', ...ifParentLives,
  ]);
});

test('where KVM is used, its group is the only one', () => {
  const { command } = openJail({ euid: 0, pid: 7, kvmGroup: 109 }).take();
  assert.ok(command.includes('--groups=109'));
  assert.ok(!command.includes('--clear-groups'));
});

test('without root: no uid and no namespace, and the rest still', () => {
  const jail = openJail({ euid: 1000, pid: 7, kvmGroup: 109 });
  const { uid, gid, command } = jail.take();
  assert.deepEqual([jail.confined, uid, gid], [false, undefined, undefined]);
  assert.deepEqual(command, [...rlimits, 'setpriv', '--pdeathsig', 'KILL', '--no-new-privs', '--', ...ifParentLives]);
});

test('no two live VMs share a uid, in one process or in two; a freed one comes again', () => {
  const jail = openJail({ euid: 0, pid: 100 });
  const slots = Array.from({ length: 64 }, () => jail.take());
  const neighbour = Array.from({ length: 2 }, () => openJail({ euid: 0, pid: 101 }).take());
  const uids = new Set([...slots, ...neighbour.slice(0, 1)].map(({ uid }) => uid));
  assert.equal(uids.size, 65);
  assert.ok(!uids.has(templateGroup));
  assert.throws(() => jail.take(), /more than 64 VMs/);
  slots[5]?.release();
  assert.equal(jail.take().uid, slots[5]?.uid);
  // The largest pid of Linux still makes a uid that fits 32 bits and is not (uid_t) -1.
  const last = openJail({ euid: 0, pid: 4_194_304 }).take().uid ?? 0;
  assert.ok(last > templateGroup && last < 2 ** 32 - 1);
});

test('the launchers of this machine take the command, and every link execs the next: the pid stays', () => {
  const { command } = openJail({ euid: 1000, pid: process.pid }).take();
  const script = 'echo $$ $(ulimit -c) $(ulimit -n); grep NoNewPrivs /proc/$$/status';
  const [program = '', ...args] = [...command, 'sh', '-c', script];
  const { stdout, pid, status } = spawnSync(program, args, { encoding: 'utf8', timeout: 10_000 });
  assert.equal(status, 0);
  assert.equal(stdout, `${pid} 0 ${limits.vmmOpenFiles}\nNoNewPrivs:\t1\n`);
});

test('a VMM whose parent is gone before the death signal is set does not start', () => {
  const { command } = openJail({ euid: 1000, pid: process.ppid }).take();
  const [program = '', ...args] = [...command, 'echo', 'started'];
  const { stdout, status } = spawnSync(program, args, { encoding: 'utf8', timeout: 10_000 });
  assert.deepEqual([status, stdout], [1, '']);
});
