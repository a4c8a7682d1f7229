/**
 * The engine by itself, with real machines. Goal: a clone is its own process in its own jail with exactly the devices
 * and descriptors that the design names, and whatever happens to it, nothing of it stays.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { open, readdir, readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { MayflyError } from '../../src/core/errors.ts';
import { templateGroup } from '../../src/clone/jail.ts';
import type { QemuProcess } from '../../src/clone/vmm/process.ts';
import type { Machine } from '../../src/clone/vmm/contract.ts';
import type { Template } from '../../src/clone/template.ts';
import { clock, inFolder, isAlive, openRig } from './rig.ts';
import type { Rig } from './rig.ts';

let rig: Rig;
let template: Template;
const machines: Machine[] = [];

before(async () => {
  rig = await openRig();
  template = await rig.template('shell');
});

after(async () => {
  for (const machine of machines) await machine.kill();
});

function hasCode(code: string): (thrown: unknown) => boolean {
  return (thrown) => thrown instanceof MayflyError && thrown.code === code;
}

async function clone(): Promise<QemuProcess> {
  const machine = (await rig.vmm.spawn(template.state)) as QemuProcess;
  machines.push(machine);
  return machine;
}

test('a clone waits paused, runs after resume, and is gone after kill', async () => {
  const machine = await clone();
  assert.equal((await machine.qmp.execute('query-status') as { running: boolean }).running, false);
  await machine.resume();
  assert.equal((await machine.qmp.execute('query-status') as { running: boolean }).running, true);
  assert.equal(await isAlive(machine.identity), true);
  await machine.kill();
  await machine.kill();
  assert.equal(await isAlive(machine.identity), false);
  assert.deepEqual(await machine.exited, { exitCode: null, signal: 'SIGKILL' });
});

test('A1: the machine has exactly the devices of the allow-list', async () => {
  const machine = await clone();
  type Bus = { readonly devices: readonly { readonly id: { readonly device: number; readonly vendor: number } }[] };
  const buses = (await machine.qmp.execute('query-pci')) as unknown as readonly Bus[];
  const devices = buses.flatMap((bus) => bus.devices);
  const found = devices.map(({ id }) => `${id.vendor.toString(16)}:${id.device.toString(16)}`);
  const allowed = {
    '8086:29c0': 'q35 host bridge',
    '8086:2918': 'ICH9 LPC bridge',
    '1af4:1003': 'virtio-serial: the bridge',
    '1af4:1001': 'virtio-blk: the base image',
  };
  assert.deepEqual([...found].sort(), Object.keys(allowed).sort());
  const block = (await machine.qmp.execute('query-block')) as unknown as { inserted: { ro: boolean } }[];
  assert.deepEqual(block.map(({ inserted }) => inserted.ro), [true]);
  const chardevs = (await machine.qmp.execute('query-chardev')) as unknown as { label: string }[];
  assert.deepEqual(chardevs.map(({ label }) => label).sort(), ['bridge', 'console', 'qmp']);
  await machine.kill();
});

test('A2: the VMM has its own uid, no capability, no new privileges, a seccomp filter, only its fds', async (t) => {
  if (!rig.jail.confined) return t.skip('needs root: without it a VMM has no uid of its own');
  const [one, other] = [await clone(), await clone()];
  const status = new Map(
    (await readFile(`/proc/${one.identity.pid}/status`, 'utf8')).split('\n').map((line) => {
      const [name = '', value = ''] = line.split(':\t');
      return [name, value] as const;
    }),
  );
  const uids = new Set(status.get('Uid')?.split('\t'));
  assert.equal(uids.size, 1, 'real, effective, saved and file-system uid are one');
  assert.notEqual([...uids][0], '0');
  assert.deepEqual(new Set(status.get('Gid')?.split('\t')), new Set([String(templateGroup)]));
  assert.equal(status.get('Groups')?.trim(), '');
  for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) {
    assert.equal(status.get(set), '0000000000000000');
  }
  assert.equal(status.get('NoNewPrivs'), '1');
  assert.equal(status.get('Seccomp'), '2');
  const otherUid = /^Uid:\t(\d+)/m.exec(await readFile(`/proc/${other.identity.pid}/status`, 'utf8'))?.[1];
  assert.notEqual(otherUid, [...uids][0]);

  const ours = await readlink('/proc/self/ns/net');
  assert.notEqual(await readlink(`/proc/${one.identity.pid}/ns/net`), ours, 'its own, empty network namespace');
  const limits = await readFile(`/proc/${one.identity.pid}/limits`, 'utf8');
  assert.match(limits, /Max core file size\s+0\s+0/);

  const folder = `/proc/${one.identity.pid}/fd`;
  const targets = await Promise.all((await readdir(folder)).map((name) => readlink(join(folder, name))));
  const files = new Set(targets.filter(
    (target) => !/^(socket|pipe|anon_inode):/.test(target) && target !== '/dev/null' && !target.startsWith('/memfd:'),
  ));
  const given = new Set([template.state.baseImage, template.state.ram]);
  assert.deepEqual(files, given, 'no file but the two it was given');
  await one.kill();
  await other.kill();
});

test('A7: a guest that ends itself stays dead: paused, reported, then killed', async () => {
  const machine = await clone();
  await machine.resume();
  await machine.qmp.execute('system_reset');
  const reason = await machine.halted;
  assert.match(reason, /stopped itself \(host-qmp-system-reset\)/);
  assert.equal((await machine.qmp.execute('query-status') as { running: boolean }).running, false);
  await machine.kill();
});

test('a template that does not become ready fails with its console, and leaves no process', async () => {
  await inFolder(async (folder) => {
    const spec = await rig.spec(folder, 'shell');
    const failure = await rig.vmm
      .buildTemplate(spec, async (bridge) => {
        await new Promise((resolve) => bridge.once('data', resolve));
        throw new Error('prepared on purpose to fail');
      })
      .then(() => undefined, (error: unknown) => error);
    assert.ok(failure instanceof MayflyError);
    assert.equal(failure.code, 'E_TEMPLATE_BUILD');
    assert.match(failure.message, /on purpose/);
  });
});

test('a base image that is missing is an error of the clone, not a crash', async () => {
  const state = { ...template.state, baseImage: '/nonexistent/image' };
  await assert.rejects(rig.vmm.spawn(state), hasCode('E_CLONE_FAILED'));
});

test('a device state that is garbage is an error of the clone that says so', async () => {
  const state = { ...template.state, state: Buffer.alloc(4096, 7) };
  await assert.rejects(rig.vmm.spawn(state), hasCode('E_CLONE_FAILED'));
});

test('F1: a RAM image that was written to is refused, and its template discarded', async () => {
  const shell = await rig.repository.images.get('shell');
  const { openTemplates } = await import('../../src/clone/template.ts');
  await inFolder(async (folder) => {
    const templates = openTemplates({
      home: folder, kernel: rig.repository.kernel, initramfs: rig.repository.initramfs, vmm: rig.vmm, clock,
      workloadId: 1000, compile: rig.compile, builder: `${process.pid}-0`, alive: async () => true,
    });
    const victim = await templates.get(shell, template.state.ramBytes);
    await victim.check();
    const file = await open(victim.state.ram, 'r+');
    await file.write(Buffer.from('x'), 0, 1, 4096);
    await file.close();
    await assert.rejects(victim.check(), hasCode('E_TEMPLATE_TAMPERED'));
    assert.equal(existsSync(victim.state.ram), false);
  });
});

test('a VMM dies with its parent, also at kill -9', async () => {
  const script = `
    import { openRig } from ${JSON.stringify(join(import.meta.dirname, 'rig.ts'))};
    const rig = await openRig();
    const machine = await rig.vmm.spawn((await rig.template('shell')).state);
    await machine.resume();
    process.stdout.write(machine.identity.pid + ' ' + machine.identity.startTicks + '\\n');
    setInterval(() => {}, 1000);
  `;
  const program = ['--input-type=module-typescript', '-e', script];
  const parent = spawn(process.execPath, program, { stdio: ['ignore', 'pipe', 'inherit'] });
  const line = await new Promise<string>((resolve) => {
    parent.stdout.once('data', (data: Buffer) => resolve(String(data)));
  });
  const [pid = '', startTicks = ''] = line.trim().split(' ');
  const identity = { pid: Number(pid), startTicks: BigInt(startTicks) };
  assert.equal(await isAlive(identity), true);
  parent.kill('SIGKILL');
  await new Promise((resolve) => parent.once('exit', resolve));
  const deadline = clock.now() + 5_000;
  while ((await isAlive(identity)) && clock.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.equal(await isAlive(identity), false);
});
